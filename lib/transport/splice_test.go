package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// pairOf is two ends of one way to move octets: what is written to the second is read from the first.
func pairOf(t *testing.T, kind string) (r, w *os.File) {
	t.Helper()
	var err error
	switch kind {
	case "pipe":
		r, w, err = os.Pipe()
	case "socket":
		var fds [2]int
		fds, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		r, w = os.NewFile(uintptr(fds[0]), "r"), os.NewFile(uintptr(fds[1]), "w")
	case "file", "append":
		flags := os.O_CREATE | os.O_WRONLY
		if kind == "append" {
			flags |= os.O_APPEND
		}
		name := filepath.Join(t.TempDir(), "f")
		if w, err = os.OpenFile(name, flags, 0o600); err == nil {
			r, err = os.Open(name)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

// Between any two kinds of descriptor, blocking or not, CopyTo moves just what was asked for, and in order.
func TestCopyTo(t *testing.T) {
	const size, behind = 3<<20 + 12345, 77
	data := make([]byte, size+behind)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	for _, from := range []string{"pipe", "socket", "file"} {
		for _, to := range []string{"pipe", "socket", "file", "append"} {
			for _, nonblock := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s to %s, O_NONBLOCK %v", from, to, nonblock), func(t *testing.T) {
					testCopyTo(t, from, to, nonblock, data, size)
				})
			}
		}
	}
}

func testCopyTo(t *testing.T, from, to string, nonblock bool, data []byte, size int) {
	inR, inW := pairOf(t, from)
	outR, outW := pairOf(t, to)
	fed := make(chan error, 1)
	feed := func() {
		_, err := inW.Write(data)
		fed <- errors.Join(err, inW.Close())
	}
	if from == "file" {
		feed()
	} else {
		go feed()
	}
	for _, f := range []*os.File{inR, outW} {
		if err := unix.SetNonblock(int(f.Fd()), nonblock); err != nil {
			t.Fatal(err)
		}
	}
	got := make(chan []byte, 1)
	collect := func() {
		b, err := io.ReadAll(outR)
		if err != nil {
			t.Error(err)
		}
		got <- b
	}
	if to == "pipe" || to == "socket" {
		go collect()
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, err := NewReader(ctx, int(inR.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewWriter(int(outW.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	for done := 0; done < size; {
		n := min(size-done, 1+int(rand.Uint32())%(1<<20))
		if moved, err := r.CopyTo(w, uint64(n)); err != nil || moved != uint64(n) {
			t.Fatalf("%d of %d moved: %v", moved, n, err)
		}
		done += n
	}
	rest := len(data) - size
	if moved, err := r.CopyTo(io.Discard, uint64(rest+1)); moved != uint64(rest) || err != io.EOF {
		t.Errorf("to the end: %d of %d, %v", moved, rest+1, err)
	}
	if err := errors.Join(<-fed, outW.Close()); err != nil {
		t.Error(err)
	}
	if to == "file" || to == "append" {
		collect()
	}
	if b := <-got; !bytes.Equal(b, data[:size]) {
		t.Errorf("%d octets came, not the %d that were sent", len(b), size)
	}
}

func TestCopyToClosedPipe(t *testing.T) {
	inR, inW := pairOf(t, "pipe")
	outR, outW := pairOf(t, "pipe")
	if _, err := inW.WriteString("some octets"); err != nil {
		t.Fatal(err)
	}
	_ = outR.Close()
	r, err := NewReader(context.Background(), int(inR.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewWriter(int(outW.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := r.CopyTo(w, 11); n != 0 || !errors.Is(err, unix.EPIPE) {
		t.Errorf("%d, %v", n, err)
	}
}

// A wait ends with the context, be it for input or for room in the output.
func TestCopyToCancelled(t *testing.T) {
	for _, full := range []bool{false, true} {
		inR, inW := pairOf(t, "pipe")
		_, outW := pairOf(t, "pipe")
		if full {
			if _, err := inW.Write(make([]byte, 4096)); err != nil {
				t.Fatal(err)
			}
		}
		w, err := NewWriter(int(outW.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		if full {
			n, err := unix.FcntlInt(outW.Fd(), unix.F_GETPIPE_SZ, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := outW.Write(make([]byte, n)); err != nil {
				t.Fatal(err)
			}
		}
		why := errors.New("enough")
		ctx, cancel := context.WithCancelCause(context.Background())
		r, err := NewReader(ctx, int(inR.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := r.CopyTo(w, 4096)
			done <- err
		}()
		cancel(why)
		if err := <-done; !errors.Is(err, why) {
			t.Errorf("output full %v: %v", full, err)
		}
	}
}
