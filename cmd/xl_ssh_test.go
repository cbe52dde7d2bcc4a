package cmd_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestXLSSH moves a guest through a real sshd on loopback, which lets in one key that lives as long as the test.
func TestXLSSH(t *testing.T) {
	const sshd = "/usr/sbin/sshd" // it wants to be called by its whole name
	if _, err := os.Stat(sshd); err != nil {
		if os.Getenv("XENFERRY_CI") != "" {
			t.Fatal("sshd is missing: install the package openssh-server")
		}
		t.Skip("no sshd: install the package openssh-server")
	}
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		if os.Getenv("XENFERRY_CI") != "" {
			t.Fatal("ssh is missing: install the package openssh-client")
		}
		t.Skip("no ssh: install the package openssh-client")
	}
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
		"StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\n", port, dir, dir), 0o600)
	server := start(t, sshd, "-D", "-e", "-f", config)
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
	// The user's ssh, with what a user has in ~/.ssh/config.
	file("ssh", fmt.Sprintf("#!/bin/sh\nexec %s -F none -p %d -i %s/user -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=%s/known -o LogLevel=ERROR \"$@\"\n",
		ssh, port, dir, dir), 0o755)
	program, err := exec.LookPath("xl-stream")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	a, b := newHost(t, "--memory", "64M"), newHost(t, "--memory", "64M")
	for _, kind := range []string{"hvm", "pv64"} {
		a.create(t, append(busy, "--kind", kind)...)
		remote := fmt.Sprintf("%s receive --host %s --journal %s/journal", program, b.spec, dir)
		_, said, status := try(t, "xl-stream", "send", "--host", a.spec, "--remote", remote, "g", "ssh:127.0.0.1")
		if status != 0 {
			t.Fatalf("exit status %d\n%s\n%s", status, said, server.stderr.String())
		}
		moved(t, a, b, said)
		run(t, "xc-sim", "destroy", "--host", b.spec, "g")
	}
}
