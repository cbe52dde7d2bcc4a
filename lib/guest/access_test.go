package guest

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAccess(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/memory")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(PageSize); err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, PageSize, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(mem) }()
	sum := 0
	read := func() error { sum += int(mem[7]); return nil }
	if err := Access(read); err != nil {
		t.Errorf("a page that is there: %v", err)
	}
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if err := Access(read); err == nil {
		t.Error("a page that is gone could be read")
	}
	mine := errors.New("mine")
	if err := Access(func() error { return mine }); err != mine {
		t.Errorf("f's own error became %v", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a panic that is no fault was swallowed")
		}
	}()
	_ = Access(func() error { panic("other") })
}
