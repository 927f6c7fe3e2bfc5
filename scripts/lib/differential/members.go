// Lists what Go's archive/tar finds in files, as crates/diff/examples/members.rs does.
package main

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
)

func hex(text string) string {
	if text == "" {
		return "-"
	}
	return fmt.Sprintf("%x", text)
}

func list(path string, out io.Writer) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	reader := tar.NewReader(bufio.NewReader(file))
	for {
		head, err := reader.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		kinds := map[byte]string{tar.TypeReg: "file", tar.TypeRegA: "file", tar.TypeCont: "file",
			tar.TypeGNUSparse: "file", tar.TypeLink: "link", tar.TypeSymlink: "symlink",
			tar.TypeDir: "dir", tar.TypeChar: "char", tar.TypeBlock: "block", tar.TypeFifo: "fifo"}
		kind, known := kinds[head.Typeflag]
		if head.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if !known {
			kind = fmt.Sprintf("type%02x", head.Typeflag)
		}
		hash := sha256.New()
		if _, err := io.Copy(hash, reader); err != nil {
			return err
		}
		device, size, link := "-", head.Size, head.Linkname
		if kind == "char" || kind == "block" {
			device = fmt.Sprintf("%d,%d", head.Devmajor, head.Devminor)
		}
		if kind != "file" {
			size = 0
		}
		if kind != "link" && kind != "symlink" {
			link = ""
		}
		fmt.Fprintf(out, "member %s %o %d %d %d.%09d %d %s %s %s %x\n", kind, head.Mode&07777,
			head.Uid, head.Gid, head.ModTime.Unix(), head.ModTime.Nanosecond(), size, device,
			hex(head.Name), hex(link), hash.Sum(nil))
	}
}

func main() {
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for _, path := range os.Args[1:] {
		end := "ok"
		if err := list(path, out); err != nil {
			end = "error " + err.Error()
		}
		fmt.Fprintf(out, "end %s %s\n", path, end)
	}
}
