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
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/proxy"
	"github.com/containerd/containerd/snapshots/testsuite"
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

func TestSnapshotter(t *testing.T) {
	testsuite.SnapshotterSuite(t, "strata", newSnapshotter)
}
