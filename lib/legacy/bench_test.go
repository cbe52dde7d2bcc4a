package legacy_test

import (
	"context"
	"io"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
	"xenferry/lib/legacy"
	"xenferry/lib/legacy/legacytest"
	"xenferry/lib/transport"
)

// benchImage is an HVM image with 64 MiB of memory in batches of 1024 pages.
func benchImage() []byte {
	w := &legacytest.Writer{Width: legacy.Width64}
	w.Size(64 << 20 >> guest.PageShift)
	for first := range 16 {
		entries := make([]uint64, 1024)
		for i := range entries {
			entries[i] = uint64(first*1024 + i)
		}
		w.Batch(entries, func(e uint64, p []byte) { p[0] = byte(e) })
	}
	w.VCPUInfo(0, 1)
	w.Chunk(legacy.ChunkEnd)
	w.MagicPFNs(1, 2, 3)
	w.Blob(make([]byte, 1000))
	return w.B
}

// cpu is the time that this thread has spent on processors, in nanoseconds.
func cpu(b *testing.B) float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano() + u.Stime.Nano())
}

// pipes are a pipe's two ends.
func pipes(b *testing.B) (r, w *os.File) {
	r, w, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

// BenchmarkConvert converts from one descriptor to another and tells the CPU time that this takes for each GiB, next to
// that of copying as cat does.
func BenchmarkConvert(b *testing.B) {
	image := benchImage()
	convert := func(src io.Reader, dst io.Writer) error {
		_, err := legacy.Convert(dst, legacy.NewReader(src, legacy.Options{SkipQEMU: true}), legacy.Conversion{Format: legacy.LibXC, Version: 3})
		return err
	}
	buf := make([]byte, 128<<10)
	cat := func(src io.Reader, dst io.Writer) error {
		_, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, buf)
		return err
	}
	for _, f := range []struct {
		name   string
		filter func(io.Reader, io.Writer) error
	}{{"convert", convert}, {"cat", cat}} {
		b.Run("pipes/"+f.name, func(b *testing.B) { benchPipes(b, image, f.filter) })
		b.Run("files/"+f.name, func(b *testing.B) { benchFiles(b, image, f.filter) })
	}
}

func benchPipes(b *testing.B, image []byte, filter func(io.Reader, io.Writer) error) {
	spent := 0.0
	b.SetBytes(int64(len(image)))
	for b.Loop() {
		inR, inW := pipes(b)
		outR, outW := pipes(b)
		go func() { _, _ = inW.Write(image); _ = inW.Close() }()
		done := make(chan error, 1)
		go func() {
			_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, outR, make([]byte, 1<<20))
			done <- err
		}()
		spent += benchOnce(b, inR, outW, filter)
		_ = outW.Close()
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	report(b, spent, len(image))
}

func benchFiles(b *testing.B, image []byte, filter func(io.Reader, io.Writer) error) {
	dir := b.TempDir()
	if err := os.WriteFile(dir+"/in", image, 0o600); err != nil {
		b.Fatal(err)
	}
	spent := 0.0
	b.SetBytes(int64(len(image)))
	for b.Loop() {
		in, err := os.Open(dir + "/in")
		if err != nil {
			b.Fatal(err)
		}
		out, err := os.Create(dir + "/out")
		if err != nil {
			b.Fatal(err)
		}
		spent += benchOnce(b, in, out, filter)
		_, _ = in.Close(), out.Close()
	}
	report(b, spent, len(image))
}

// benchOnce runs the filter and returns the CPU time it took.
func benchOnce(b *testing.B, in, out *os.File, filter func(io.Reader, io.Writer) error) float64 {
	src, err := transport.NewReader(context.Background(), int(in.Fd()))
	if err != nil {
		b.Fatal(err)
	}
	dst, err := transport.NewWriter(int(out.Fd()))
	if err != nil {
		b.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := cpu(b)
	if err := filter(src, dst); err != nil {
		b.Fatal(err)
	}
	return cpu(b) - before
}

func report(b *testing.B, spent float64, size int) {
	b.ReportMetric(spent/1e6/(float64(b.N)*float64(size)/(1<<30)), "cpu-ms/GiB")
}
