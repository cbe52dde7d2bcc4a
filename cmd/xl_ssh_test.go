package cmd_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"xenferry/lib/testkit"
)

// sshTo starts a real sshd on loopback, which lets in one key that lives as long as the test, and puts an ssh in PATH that
// comes to it with what a user has in ~/.ssh/config. What sshd starts has variables as its environment says.
func sshTo(t *testing.T, variables ...string) (server *process) {
	t.Helper()
	sshd := testkit.Command(t, "/usr/sbin/sshd", "openssh-server") // it wants to be called by its whole name
	ssh := testkit.Command(t, "ssh", "openssh-client")
	if os.Getuid() == 0 { // where its privileges are separated; at home in a folder that a container has not got
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, key := range []string{"host", "user"} {
		run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	config := file("sshd_config", fmt.Sprintf("ListenAddress 127.0.0.1\nPort %d\nHostKey %s/host\nAuthorizedKeysFile %s/user.pub\n"+
		"StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\nSetEnv %s\n", port, dir, dir,
		strings.Join(append(variables, "PATH="+os.Getenv("PATH")), " ")), 0o600)
	server = start(t, sshd, "-D", "-e", "-f", config)
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", port))
		if err == nil {
			_ = c.Close()
			break
		}
		if server.over() || time.Now().After(end) {
			t.Fatalf("sshd did not start: %v\n%s", err, server.stderr.String())
		}
	}
	file("ssh", fmt.Sprintf("#!/bin/sh\nexec %s -F none -p %d -i %s/user -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=%s/known -o LogLevel=ERROR \"$@\"\n",
		ssh, port, dir, dir), 0o755)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return server
}

// TestXLSSH moves a guest through a real sshd.
func TestXLSSH(t *testing.T) {
	server := sshTo(t)
	journal := t.TempDir()
	a, b := newHost(t, "--memory", "64M"), newHost(t, "--memory", "64M")
	for _, kind := range []string{"hvm", "pv64"} {
		a.create(t, append(busy, "--kind", kind)...)
		remote := fmt.Sprintf("xl-stream receive --host %s --journal %s", b.spec, journal)
		_, said, status := try(t, "xl-stream", "send", "--host", a.spec, "--remote", remote, "g", "ssh:127.0.0.1")
		if status != 0 {
			t.Fatalf("exit status %d\n%s\n%s", status, said, server.stderr.String())
		}
		moved(t, a, b, said)
		run(t, "xc-sim", "destroy", "--host", b.spec, "g")
	}
}

// TestXLSSHScripts has xc-migrate and xc-evacuate move guests to a machine that ssh reaches, which has its own host and journal.
func TestXLSSHScripts(t *testing.T) {
	a, b := newHost(t, "--memory", "96M"), newHost(t, "--memory", "96M")
	journal := t.TempDir()
	server := sshTo(t, "XENFERRY_HOST="+b.spec, "XENFERRY_JOURNAL="+journal)
	remove := func() { run(t, "xc-sim", "destroy", "--host", b.spec, "g") }

	for _, options := range [][]string{nil, {"--via", "cat"}, {"--paused"}} {
		a.create(t, append(busy, "--kind", "hvm")...)
		_, said, status := try(t, append(append([]string{"../scripts/xc-migrate", "--from", a.spec}, options...), "g", "127.0.0.1")...)
		d := b.domain(t, "g")
		if status != 0 || d == nil || d.Paused != slices.Contains(options, "--paused") || a.domain(t, "g") != nil {
			t.Fatalf("%v: exit status %d, %+v\n%s%s", options, status, d, said, server.stderr.String())
		}
		if err := b.check(t, "g"); err != nil {
			t.Errorf("%v: %v", options, err)
		}
		remove()
	}

	stepping, err := steppingXLStream()
	if err != nil {
		t.Fatal(err)
	}
	// The link is lost: once when GO is about to be sent, and the target, asked over another, takes it from there; once
	// as the user has enough, and the target is told over another that it holds its copy for nothing.
	for _, c := range []struct {
		step  string
		then  func(sender *process) bool
		moves bool
	}{
		{"source: send domain is yours", func(p *process) bool { return killUnder(p.cmd.Process.Pid, "ssh") }, true},
		{"source: got domain received and held", func(p *process) bool {
			_ = p.cmd.Process.Signal(syscall.SIGTERM)
			time.Sleep(time.Second) // it takes note
			return killUnder(p.cmd.Process.Pid, "ssh")
		}, false},
	} {
		a.create(t, append(busy, "--kind", "pv64")...)
		var sender *process
		begun := make(chan struct{})
		s := newStage(t, func(step string, _ int) {
			<-begun
			if strings.HasPrefix(step, c.step) && !c.then(sender) {
				t.Errorf("%s: nobody is there", step)
			}
		})
		sender = start(t, "env", "PATH="+filepath.Dir(stepping)+":"+os.Getenv("PATH"), "XENFERRY_STEPS="+s.socket, "XENFERRY_ROLE=source",
			"../scripts/xc-migrate", "--from", a.spec, "g", "127.0.0.1")
		close(begun)
		status, said := sender.wait(), sender.stderr.String()
		if c.moves {
			if status != 0 || !strings.Contains(said, "asking the target") {
				t.Errorf("exit status %d\n%s", status, said)
			}
			moved(t, a, b, said)
			remove()
			continue
		}
		left, err := b.Domains(t.Context())
		if status != 1 || !strings.Contains(said, "runs on") || err != nil || len(left) > 0 {
			t.Errorf("exit status %d, left %+v, %v\n%s", status, left, err, said)
		}
		if err := a.check(t, "g"); err != nil {
			t.Error(err)
		}
		run(t, "xc-sim", "destroy", "--host", a.spec, "g")
	}

	t.Run("evacuate", func(t *testing.T) {
		for name, memory := range map[string]string{"small": "8M", "big": "24M", "mid": "16M"} {
			a.create(t, "--name", name, "--kind", "pvh", "--memory", memory, "--workload", "uniform:2000")
		}
		out, said, status := try(t, "../scripts/xc-evacuate", "--from", a.spec, "--jobs", "2", "127.0.0.1")
		if want := "big\t127.0.0.1\nmid\t127.0.0.1\nsmall\t127.0.0.1\n"; status != 0 || out != want {
			t.Errorf("exit status %d, printed %q, want %q\n%s", status, out, want, said)
		}
		for _, name := range []string{"small", "big", "mid"} {
			if err := b.check(t, name); err != nil {
				t.Error(err)
			}
		}
	})
}
