package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ends makes a pair of connected descriptors of each sort that a stream may be given.
var ends = map[string]func(t *testing.T) (r, w int){
	"pipe": func(t *testing.T) (int, int) { return pair(t, func(p []int) error { return unix.Pipe2(p, 0) }) },
	"non-blocking pipe": func(t *testing.T) (int, int) {
		return pair(t, func(p []int) error { return unix.Pipe2(p, unix.O_NONBLOCK) })
	},
	"socket": func(t *testing.T) (int, int) { return pair(t, socketpair(0)) },
	"non-blocking socket": func(t *testing.T) (int, int) {
		return pair(t, socketpair(unix.SOCK_NONBLOCK))
	},
	"socket with a limit": func(t *testing.T) (int, int) {
		r, w := pair(t, socketpair(0))
		if err := keepAlive(w, time.Hour); err != nil {
			t.Fatal(err)
		}
		return r, w
	},
}

func socketpair(flags int) func([]int) error {
	return func(p []int) error {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|flags, 0)
		copy(p, fds[:])
		return err
	}
}

func pair(t *testing.T, make func([]int) error) (int, int) {
	t.Helper()
	var p [2]int
	if err := make(p[:]); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(p[0]) })
	return p[0], p[1]
}

// TestVec: buffers of odd sizes, more of them than one call takes, arrive whole and in order, some of them side by side
// in memory.
func TestVec(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var out, in [][]byte
	var want []byte
	for range 3*maxVec + 5 {
		b := make([]byte, random.IntN(3000))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		want = append(want, b...)
		for len(b) > 0 {
			n := min(len(b), 1+random.IntN(2000))
			out, b = append(out, b[:n]), b[n:]
		}
	}
	for left := len(want); left > 0; {
		n := min(left, 1+random.IntN(2500))
		in, left = append(in, make([]byte, n)), left-n
	}
	for name, make := range ends {
		t.Run(name, func(t *testing.T) {
			rfd, wfd := make(t)
			w, err := NewWriter(wfd)
			if err != nil {
				t.Fatal(err)
			}
			sent := error(nil)
			done := goDo(func() {
				_, sent = w.WriteVec(out)
				_ = unix.Close(wfd)
			})
			r, err := NewReader(t.Context(), rfd)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := r.ReadVec(in); err != nil || n != len(want) {
				t.Fatalf("%d octets of %d, error %v", n, len(want), err)
			}
			<-done
			if sent != nil || !bytes.Equal(bytes.Join(in, nil), want) {
				t.Errorf("write error %v, or other octets came", sent)
			}
			if n, err := r.ReadVec([][]byte{make1()}); n != 0 || !errors.Is(err, io.EOF) {
				t.Errorf("after the end: %d octets, error %v", n, err)
			}
		})
	}
}

func make1() []byte { return make([]byte, 1) }

func goDo(f func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	return done
}

// TestCancel: a read that waits ends with its context, and the descriptor's flags are as they were.
func TestCancel(t *testing.T) {
	cause := errors.New("signal")
	for name, make := range ends {
		t.Run(name, func(t *testing.T) {
			rfd, wfd := make(t)
			defer func() { _ = unix.Close(wfd) }()
			before, _ := unix.FcntlInt(uintptr(rfd), unix.F_GETFL, 0)
			ctx, cancel := context.WithCancelCause(t.Context())
			r, err := NewReader(ctx, rfd)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := unix.Write(wfd, []byte("ab")); err != nil {
				t.Fatal(err)
			}
			got := make1()
			if n, err := r.Read(got); n != 1 || err != nil || got[0] != 'a' {
				t.Fatalf("%d octets %q, error %v", n, got, err)
			}
			done := goDo(func() { _, err = r.ReadVec([][]byte{make1(), make1()}) })
			cancel(cause)
			if <-done; !errors.Is(err, cause) {
				t.Errorf("error %v", err)
			}
			if after, _ := unix.FcntlInt(uintptr(rfd), unix.F_GETFL, 0); after != before {
				t.Errorf("flags were %#x, are %#x", before, after)
			}
		})
	}
}

// TestCancelWrite: a write that waits ends with its context, whoever shares the descriptor. What came is a beginning of what was
// written, nothing comes after it, and the flags are as they were.
func TestCancelWrite(t *testing.T) {
	cause := errors.New("signal")
	data := make([]byte, 6*PipeSize)
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(data)
	for name, make := range ends {
		t.Run(name, func(t *testing.T) {
			rfd, wfd := make(t)
			defer func() { _ = unix.Close(wfd) }()
			before, _ := unix.FcntlInt(uintptr(wfd), unix.F_GETFL, 0)
			ctx, cancel := context.WithCancelCause(t.Context())
			w, err := NewWriterUntil(ctx, wfd)
			if err != nil {
				t.Fatal(err)
			}
			var n int
			done := goDo(func() { n, err = w.WriteVec([][]byte{data[:5], data[5:PipeSize], data[PipeSize:]}) })
			r, e := NewReader(t.Context(), rfd)
			got := new(bytes.Buffer)
			if e == nil {
				_, e = io.CopyN(got, r, 3*PipeSize) // so it goes on when there is room again
			}
			if e != nil {
				t.Fatal(e)
			}
			cancel(cause)
			if <-done; !errors.Is(err, cause) || n >= len(data) {
				t.Errorf("%d octets of %d, error %v", n, len(data), err)
			}
			if m, err := w.Write([]byte("END")); m != 0 || !errors.Is(err, cause) {
				t.Errorf("afterwards: %d octets, error %v", m, err)
			}
			if after, _ := unix.FcntlInt(uintptr(wfd), unix.F_GETFL, 0); after != before {
				t.Errorf("flags were %#x, are %#x", before, after)
			}
			_ = unix.Shutdown(wfd, unix.SHUT_WR)
			_ = unix.Close(wfd)
			if _, err := io.Copy(got, r); err != nil {
				t.Error(err)
			}
			if !bytes.Equal(got.Bytes(), data[:n]) {
				t.Errorf("%d octets came of %d that went, or others", got.Len(), n)
			}
		})
	}
}

// TestSilence: a write to a socket is not kept waiting for longer than its limit by who takes nothing, whatever its flags, and
// tells how much has gone.
func TestSilence(t *testing.T) {
	for _, flags := range []int{0, unix.SOCK_NONBLOCK} {
		for name, open := range map[string]func(fd int) (*Writer, error){
			"NewWriter": NewWriter, "NewWriterUntil": func(fd int) (*Writer, error) { return NewWriterUntil(t.Context(), fd) },
		} {
			rfd, wfd := pair(t, socketpair(flags))
			if err := keepAlive(wfd, 100*time.Millisecond); err != nil {
				t.Fatal(err)
			}
			w, err := open(wfd)
			if err != nil {
				t.Fatal(err)
			}
			n, err := w.WriteVec([][]byte{make([]byte, PipeSize), make([]byte, 64*PipeSize)})
			if !errors.Is(err, unix.ETIMEDOUT) || !strings.Contains(err.Error(), "took nothing for 100ms") {
				t.Errorf("%s, flags %#x: %v", name, flags, err)
			}
			_ = unix.Shutdown(wfd, unix.SHUT_WR)
			r, err := NewReader(t.Context(), rfd)
			if err != nil {
				t.Fatal(err)
			}
			if came, err := io.Copy(io.Discard, r); err != nil || came != int64(n) {
				t.Errorf("%s, flags %#x: %d octets came, %d went, %v", name, flags, came, n, err)
			}
		}
	}
}

// TestFileOffset: a file is read and written from where it stands.
func TestFileOffset(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteString("head"); err != nil {
		t.Fatal(err)
	}
	w, err := NewWriter(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteVec([][]byte{[]byte("one"), nil, []byte("two")}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(5, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(t.Context(), int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := r.ReadVec([][]byte{got}); err != nil || string(got) != "netwo" {
		t.Errorf("read %q, error %v", got, err)
	}
}

func TestCheck(t *testing.T) {
	if err := Check(-1); !errors.Is(err, unix.EBADF) {
		t.Errorf("no descriptor: %v", err)
	}
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("a terminal to refuse: %v", err)
	}
	defer func() { _ = tty.Close() }()
	if err := Check(int(tty.Fd())); !errors.Is(err, ErrTerminal) {
		t.Errorf("a terminal: %v", err)
	}
}

// TestBrokenPipe: a write without a reader is an error, and does not end the process.
func TestBrokenPipe(t *testing.T) {
	var p [2]int
	if err := unix.Pipe2(p[:], 0); err != nil {
		t.Fatal(err)
	}
	w, err := NewWriter(p[1])
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(p[0])
	defer func() { _ = unix.Close(p[1]) }()
	if _, err := w.Write([]byte("x")); !errors.Is(err, unix.EPIPE) {
		t.Errorf("error %v", err)
	}
}

// BenchmarkWrite writes batches of pages to a reader beside it.
func BenchmarkWrite(b *testing.B) {
	batch := make([][]byte, 1024)
	for i := range batch {
		batch[i] = make([]byte, 4096, 4097) // apart from each other
	}
	for _, row := range []struct {
		name    string
		ends    func([]int) error
		silence time.Duration
	}{
		{"pipe", func(p []int) error { return unix.Pipe2(p, 0) }, 0},
		{"unix", socketpair(0), 0},
		{"unix with a limit", socketpair(0), time.Hour},
	} {
		b.Run(row.name, func(b *testing.B) {
			var p [2]int
			if err := row.ends(p[:]); err != nil {
				b.Fatal(err)
			}
			if row.silence > 0 {
				if err := keepAlive(p[1], row.silence); err != nil {
					b.Fatal(err)
				}
			}
			w, err := NewWriter(p[1])
			if err != nil {
				b.Fatal(err)
			}
			r, err := NewReader(b.Context(), p[0])
			if err != nil {
				b.Fatal(err)
			}
			done := goDo(func() {
				for in := make([]byte, PipeSize); err == nil; {
					_, err = r.Read(in)
				}
			})
			b.SetBytes(int64(len(batch)) * 4096)
			for b.Loop() {
				if _, err := w.WriteVec(batch); err != nil {
					b.Fatal(err)
				}
			}
			_ = unix.Close(p[1])
			<-done
			_ = unix.Close(p[0])
		})
	}
}
