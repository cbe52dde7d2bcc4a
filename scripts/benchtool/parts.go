package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// host starts a simulated host whose memory is all touched.
func (b *bench) host(name string) (spec string, stop func(), err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = r.Close() }()
	socket := filepath.Join(b.dir, name)
	c := exec.Command("xc-sim", "serve", "--socket", socket, "--memory", fmt.Sprint(b.memory+b.memory/8), "--populate", "--ready-fd", "3")
	c.ExtraFiles = []*os.File{w}
	if err := c.Start(); err != nil {
		return "", nil, err
	}
	_ = w.Close()
	if _, err := r.Read(make([]byte, 1)); err != nil {
		return "", nil, fmt.Errorf("the simulated host did not start: %w", err)
	}
	return "sim:" + socket, func() {
		_ = c.Process.Signal(unix.SIGTERM)
		_ = c.Wait()
	}, nil
}

// guest makes a guest of incompressible pages on a host and has it suspended.
func (b *bench) guest(host, kind string) error {
	if _, err := output("xc-sim", "create", "--host", host, "--name", "g", "--kind", kind, "--vcpus", "1",
		"--memory", fmt.Sprint(b.memory), "--seed", "1"); err != nil {
		return err
	}
	_, err := output("xc-sim", "suspend", "--host", host, "g")
	return err
}

// copies measures a non-live save | restore of a guest of a kind, against a minimal copy of as much memory.
func (b *bench) copies(_ context.Context, kind string, target float64) error {
	from, stop, err := b.host(kind + "-from")
	if err != nil {
		return err
	}
	defer stop()
	to, stop, err := b.host(kind + "-to")
	if err != nil {
		return err
	}
	defer stop()
	if err := b.guest(from, kind); err != nil {
		return err
	}
	scattered, err := newBaseline(b.memory, 1)
	if err != nil {
		return err
	}
	defer scattered.close()
	contiguous := *scattered
	contiguous.seed = 0
	var ours, theirs, flat sample
	for range b.pairs {
		m, err := move(from, to)
		if err != nil {
			return err
		}
		ours.take(m)
		if m, err = scattered.run(); err != nil {
			return err
		}
		theirs.take(m)
		if m, err = contiguous.run(); err != nil {
			return err
		}
		flat.take(m)
		time.Sleep(100 * time.Millisecond)
	}
	size := gib(b.memory)
	b.atLeast(kind+" save|restore / scattered copy", ratio(ours, theirs), "x", target)
	b.atLeast(kind+" save|restore / contiguous copy", ratio(ours, flat), "x", 0)
	b.atLeast(kind+" save|restore", size/median(ours.seconds), "GiB/s", 0)
	b.atLeast(kind+" scattered copy", size/median(theirs.seconds), "GiB/s", 0)
	b.atLeast(kind+" contiguous copy", size/median(flat.seconds), "GiB/s", 0)
	b.atMost(kind+" save|restore CPU", median(ours.cpu)/size, "s/GiB", 0)
	b.atMost(kind+" scattered copy CPU", median(theirs.cpu)/size, "s/GiB", 0)
	bitmaps := float64(b.memory) / (1 << 20) / 4096 * 4 // a few octets for each page, and a bitmap
	for _, name := range []string{"xc-save", "xc-restore"} {
		b.atMost(fmt.Sprintf("%s %s peak RSS without the guest's", kind, name), ours.rss[name], "MiB", 48+bitmaps)
	}
	return nil
}

// move saves the guest of one host, which is suspended and stays so, into the other, and removes it there.
func move(from, to string) (measure, error) {
	r, w, err := bigPipe()
	if err != nil {
		return measure{}, err
	}
	m, err := together(nil,
		program{args: []string{"xc-save", "--host", from, "g"}, out: w},
		program{args: []string{"xc-restore", "--host", to, "--paused"}, in: r})
	if err != nil {
		return m, err
	}
	_, err = output("xc-sim", "destroy", "--host", to, "g")
	return m, err
}

// verify measures verify-v2 from a pipe against cat.
func (b *bench) verify(context.Context) error {
	from, stop, err := b.host("verify")
	if err != nil {
		return err
	}
	defer stop()
	if err := b.guest(from, "hvm"); err != nil {
		return err
	}
	image := filepath.Join(b.dir, "image")
	if _, err := output("sh", "-c", fmt.Sprintf("xc-save --host %s g >%s", from, image)); err != nil {
		return err
	}
	st, err := os.Stat(image)
	if err != nil {
		return err
	}
	var ours, theirs sample
	for range b.pairs {
		m, err := fed(image, "verify-v2", "-q")
		if err != nil {
			return err
		}
		ours.take(m)
		if m, err = fed(image, "cat"); err != nil {
			return err
		}
		theirs.take(m)
	}
	speed := float64(st.Size()) / median(ours.seconds) / 1e9
	r := ratio(ours, theirs)
	target := 0.9
	if speed >= 2 {
		target = 0
	}
	b.atLeast("verify-v2 / cat, both fed by cat", r, "x", target)
	b.atLeast("verify-v2 from a pipe (2 GB/s is enough)", speed, "GB/s", 0)
	b.atMost("verify-v2 peak RSS", ours.rss["verify-v2"], "MiB", 48)
	return nil
}

// fed runs a program with an image on a pipe that cat fills.
func fed(image string, args ...string) (measure, error) {
	r, w, err := bigPipe()
	if err != nil {
		return measure{}, err
	}
	in, err := os.Open(image)
	if err != nil {
		return measure{}, err
	}
	return together(nil, program{args: []string{"cat"}, in: in, out: w}, program{args: args, in: r})
}

// legacy measures convert-legacy between two pipes, against Xen's script and against cat in its place.
func (b *bench) legacy(context.Context) error {
	image := filepath.Join(b.dir, "legacy")
	if _, err := output("sh", "-c", "mkimage -mib 1024 >"+image); err != nil {
		return err
	}
	st, err := os.Stat(image)
	if err != nil {
		return err
	}
	options := []string{"--in", "0", "--out", "1", "--width", "64", "--guest-type", "hvm", "--format", "libxc"}
	script := os.Getenv("XENFERRY_REFERENCE")
	programs := map[string]program{
		"ours": {args: append([]string{"convert-legacy"}, options...)},
		"cat":  {args: []string{"cat"}},
	}
	if script != "" {
		programs["script"] = program{
			args: append([]string{"python3", filepath.Join(script, "bin", "convert-legacy-stream")}, options...),
			env:  []string{"PYTHONPATH=" + filepath.Join(script, "lib", "python")},
		}
	}
	taken := map[string]*sample{}
	for range b.pairs {
		for name, p := range programs {
			m, err := between(image, p)
			if err != nil {
				return err
			}
			if taken[name] == nil {
				taken[name] = &sample{}
			}
			taken[name].take(m)
		}
	}
	size := gib(uint64(st.Size()))
	ours := taken["ours"]
	b.atLeast("convert-legacy / cat, in the same pipes", ratio(*ours, *taken["cat"]), "x", 0.9)
	b.atMost("convert-legacy CPU", median(ours.cpu)/size, "s/GiB", 0)
	b.atMost("convert-legacy peak RSS", ours.rss["convert-legacy"], "MiB", 64)
	if s := taken["script"]; s != nil {
		b.atMost("convert-legacy-stream (Xen's script) CPU", median(s.cpu)/size, "s/GiB", 0)
		b.atLeast("script's CPU / convert-legacy's", median(s.cpu)/median(ours.cpu), "x", 5)
	}
	return nil
}

// between runs a program with an image on one pipe that cat fills and another that cat empties. The CPU time is that of
// the program alone.
func between(image string, p program) (measure, error) {
	r1, w1, err := bigPipe()
	if err != nil {
		return measure{}, err
	}
	r2, w2, err := bigPipe()
	if err != nil {
		return measure{}, err
	}
	in, err := os.Open(image)
	if err != nil {
		return measure{}, err
	}
	p.in, p.out = r1, w2
	m, err := together(nil, program{args: []string{"cat"}, in: in, out: w1}, p, program{args: []string{"cat"}, in: r2})
	m.cpu = m.each[1]
	return m, err
}
