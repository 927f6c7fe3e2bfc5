// containerd's own suite for snapshotters, run against strata-snapshotter through containerd's
// proxy: each test has a daemon, a store and a socket of its own.
//
// STRATA_SNAPSHOTTER is the program.
package suite

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/mount"
	"github.com/containerd/containerd/namespaces"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/proxy"
	"github.com/containerd/containerd/snapshots/testsuite"
	"github.com/containerd/continuity/fs/fstest"
	"google.golang.org/grpc"
)

func newSnapshotter(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
	program := os.Getenv("STRATA_SNAPSHOTTER")
	if program == "" {
		return nil, nil, fmt.Errorf("STRATA_SNAPSHOTTER is not set")
	}
	socket := filepath.Join(root, "s")
	daemon := exec.Command(program, "--root", filepath.Join(root, "store"),
		"--run", filepath.Join(root, "names"), "--address", socket)
	daemon.Stderr = os.Stderr
	if err := daemon.Start(); err != nil {
		return nil, nil, err
	}
	for i := 0; ; i++ {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		if i == 1000 {
			daemon.Process.Kill()
			return nil, nil, fmt.Errorf("no socket after ten seconds")
		}
		time.Sleep(10 * time.Millisecond)
	}
	conn, err := grpc.Dial("unix://"+socket, grpc.WithInsecure())
	if err != nil {
		return nil, nil, err
	}
	end := func() error {
		conn.Close()
		if err := daemon.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		if err := daemon.Wait(); err != nil {
			return err
		}
		return unmountBelow(root)
	}
	return proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), "strata"), end, nil
}

// The names stay mounted when the daemon ends, for containers go on.
func unmountBelow(root string) error {
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for _, line := range strings.Split(string(table), "\n") {
		fields := strings.Fields(line)
		if len(fields) > 1 && strings.HasPrefix(fields[1], filepath.Join(root, "names")+"/") {
			if err := syscall.Unmount(fields[1], syscall.MNT_DETACH); err != nil {
				return err
			}
		}
	}
	return nil
}

// What the suite skips: directories and files that a layer moves. containerd's own snapshotter shows
// moves of files alone, for the kernel is not asked to move directories of a lower.
func TestRename(t *testing.T) {
	root, err := os.MkdirTemp("", "rename-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(root)
	ctx := namespaces.WithNamespace(context.Background(), "testsuite")
	snapshotter, end, err := newSnapshotter(ctx, root)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := end(); err != nil {
			t.Error(err)
		}
	}()
	steps := []fstest.Applier{
		fstest.Apply(
			fstest.CreateDir("/dir1", 0700),
			fstest.CreateDir("/somefiles", 0700),
			fstest.CreateFile("/dir1/in", []byte("inside\n"), 0640),
			fstest.CreateFile("/somefiles/f1", []byte("was here first!"), 0644),
			fstest.CreateFile("/somefiles/f2", []byte("nothing interesting"), 0644),
		),
		fstest.Apply(
			fstest.Rename("/dir1", "/dir2"),
			fstest.CreateFile("/somefiles/f1-overwrite", []byte("new content 1"), 0644),
			fstest.Rename("/somefiles/f1-overwrite", "/somefiles/f1"),
			fstest.Rename("/somefiles/f2", "/somefiles/f3"),
		),
		fstest.Apply(fstest.Rename("/dir2/in", "/in"), fstest.Rename("/dir2", "/dir1")),
	}
	parent := ""
	for i, step := range steps {
		at := filepath.Join(root, fmt.Sprintf("m%d", i))
		if err := os.Mkdir(at, 0755); err != nil {
			t.Fatal(err)
		}
		mounts, err := snapshotter.Prepare(ctx, at, parent)
		if err != nil {
			t.Fatal(err)
		}
		if err := mount.All(mounts, at); err != nil {
			t.Fatal(err)
		}
		changed := step.Apply(at)
		same := fstest.CheckDirectoryEqualWithApplier(at, fstest.Apply(steps[:i+1]...))
		if err := mount.UnmountAll(at, 0); err != nil {
			t.Fatal(err)
		}
		if changed != nil || same != nil {
			t.Fatal(changed, same)
		}
		parent = fmt.Sprintf("c%d", i)
		if err := snapshotter.Commit(ctx, parent, at); err != nil {
			t.Fatal(err)
		}
	}
	mounts, err := snapshotter.View(ctx, "view", parent)
	if err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(root, "m0")
	if err := mount.All(mounts, at); err != nil {
		t.Fatal(err)
	}
	defer mount.UnmountAll(at, 0)
	if err := fstest.CheckDirectoryEqualWithApplier(at, fstest.Apply(steps...)); err != nil {
		t.Fatal(err)
	}
}

func TestSnapshotter(t *testing.T) {
	testsuite.SnapshotterSuite(t, "strata", newSnapshotter)
}
