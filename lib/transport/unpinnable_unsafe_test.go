package transport

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// vvar is the page of the clock that the kernel maps into every process. As pages of another domain are, it is memory
// that can be read but not pinned. (Its first octets count, so the tests look at its end, which does not change.)
func vvar(t *testing.T) []byte {
	t.Helper()
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var from, to uintptr
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x r", &from, &to); err == nil && strings.HasSuffix(lines.Text(), "[vvar]") {
			return unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&from))), 4096)
		}
	}
	t.Skip("no vvar page: nothing here that can be read but not pinned")
	return nil
}

// direct is a new file that pins what is written to it.
func direct(t *testing.T) *os.File {
	t.Helper()
	for _, dir := range []string{t.TempDir(), "."} {
		path := filepath.Join(dir, fmt.Sprintf(".direct-%d", os.Getpid()))
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_DIRECT, 0o600)
		if err == nil {
			t.Cleanup(func() { f.Close(); os.Remove(path) })
			return f
		}
	}
	t.Skip("no file system here takes O_DIRECT")
	return nil
}

// TestUnpinnable writes pages that the file refuses to take from their place.
func TestUnpinnable(t *testing.T) {
	page, f := vvar(t), direct(t)
	fd := int(f.Fd())
	if _, err := unix.Write(fd, page); !errors.Is(err, unix.EFAULT) {
		t.Skipf("this file takes a page that cannot be pinned: %v", err)
	}
	w, err := NewWriter(fd)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := unix.Mmap(-1, 0, 3*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(ours) }()
	for i := range ours {
		ours[i] = byte(i >> 8)
	}
	bufs := [][]byte{ours[:4096], page, ours[4096:8192], page, ours[8192:]}
	if n, err := w.WriteVec(bufs); err != nil || n != 5*4096 {
		t.Fatalf("%d octets written, %v", n, err)
	}
	if n, err := w.Write(page); err != nil || n != 4096 {
		t.Fatalf("%d octets written, %v", n, err)
	}
	got, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	const end = 3072 // of the page, which stays as it is
	for i, b := range append(bufs, page) {
		if !bytes.Equal(got[i*4096+end:][:4096-end], b[end:]) {
			t.Errorf("page %d is not what was written", i)
		}
	}
	runtime.KeepAlive(w)
}

// TestGone writes a page that is not there at all: the copy fails, too, and that is an error.
func TestGone(t *testing.T) {
	none, err := unix.Mmap(-1, 0, 4096, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(none) }()
	_, fd := pair(t, func(p []int) error { return unix.Pipe2(p, 0) })
	defer unix.Close(fd)
	w, err := NewWriter(fd)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteVec([][]byte{[]byte("head"), none}); err == nil {
		t.Error("a page that is not there was written")
	}
}

// TestUnaligned writes and reads what is no block, though the file was opened for whole blocks only.
func TestUnaligned(t *testing.T) {
	f := direct(t)
	want := bytes.Repeat([]byte("a record, then pages"), 1000)
	w, err := NewWriter(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := w.WriteVec([][]byte{want[:40], want[40:4136], want[4136:]}); err != nil || n != len(want) {
		t.Fatalf("%d octets written, %v", n, err)
	}
	again, err := os.OpenFile(f.Name(), os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	r, err := NewReader(t.Context(), int(again.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if n, err := r.ReadVec([][]byte{got[:40], got[40:4136], got[4136:]}); err != nil || n != len(want) || !bytes.Equal(got, want) {
		t.Errorf("%d octets read, %v", n, err)
	}
	runtime.KeepAlive(w)
}
