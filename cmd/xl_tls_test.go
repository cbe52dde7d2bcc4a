package cmd_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// authority makes throw-away certificates.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newAuthority makes an authority, whose certificate is the file ca.pem in its folder.
func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.cert, a.key = a.sign(t, "ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// issue makes a certificate for a host, good until an hour from now plus later, and returns the options that show it.
func (a *authority) issue(t *testing.T, name, host string, later time.Duration) []string {
	t.Helper()
	c := &x509.Certificate{NotAfter: time.Now().Add(time.Hour + later),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if ip := net.ParseIP(host); ip != nil {
		c.IPAddresses = []net.IP{ip}
	} else {
		c.DNSNames = []string{host}
	}
	a.sign(t, name, c)
	return a.options(name)
}

func (a *authority) options(name string) []string {
	return []string{"--tls-cert", a.file(name + ".pem"), "--tls-key", a.file(name + ".key"), "--tls-ca", a.file("ca.pem")}
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// sign completes a certificate, signs it, by itself if it is the first, and writes it and its key.
func (a *authority) sign(t *testing.T, name string, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber, c.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	if c.NotBefore = time.Now().Add(-100 * time.Hour); c.NotAfter.IsZero() {
		c.NotAfter = time.Now().Add(time.Hour)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(a.file(file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return made, key
}

// TestXLTLS moves guests there and back over TLS, to one receiver and to one that takes any number.
func TestXLTLS(t *testing.T) {
	a, b := newHost(t, "--memory", "64M"), newHost(t, "--memory", "64M")
	ca := newAuthority(t)
	mine, theirs := ca.issue(t, "mine", "there.example", 0), ca.issue(t, "theirs", "127.0.0.1", 0)
	a.create(t, append(busy, "--kind", "hvm")...)
	for _, once := range []bool{true, false} {
		words := append([]string{"xl-stream", "receive", "--host", b.spec, "--listen", "tls:127.0.0.1:0"}, theirs...)
		if once {
			words = append(words, "--once")
		}
		receiver := start(t, words...)
		words = append([]string{"xl-stream", "send", "--host", a.spec}, mine...)
		_, said, status := try(t, append(words, "g", listening(t, receiver))...)
		if status != 0 || strings.Contains(said, "after the hand-over") {
			t.Errorf("once %v: exit status %d\n%s", once, status, said)
		}
		if !once {
			_ = receiver.cmd.Process.Signal(syscall.SIGTERM)
		}
		if status := receiver.wait(); status != 0 || strings.Contains(receiver.stderr.String(), "warn") {
			t.Errorf("receive, once %v: exit status %d\n%s", once, status, receiver.stderr.String())
		}
		moved(t, a, b, said)
		a, b = b, a
	}
}

// TestXLTLSRefused: who cannot show what is asked for gets nothing, and is told why; the guest is not touched.
func TestXLTLSRefused(t *testing.T) {
	a, b := newHost(t, "--memory", "64M"), newHost(t, "--memory", "64M")
	ca, other := newAuthority(t), newAuthority(t)
	mine, theirs := ca.issue(t, "mine", "here.example", 0), ca.issue(t, "theirs", "127.0.0.1", 0)
	strange := other.issue(t, "strange", "127.0.0.1", 0)
	trusting := append(strange[:4:4], "--tls-ca", ca.file("ca.pem")) // another's certificate, our authority
	old := ca.issue(t, "old", "127.0.0.1", -2*time.Hour)
	a.create(t, "--name", "g", "--kind", "pv64", "--memory", "8M", "--workload", "uniform:3000")
	for _, c := range []struct {
		name        string
		send, serve []string
		says        string // either of them
	}{
		{"another authority's server", mine, trusting, "certificate signed by unknown authority"},
		{"another authority's client", trusting, theirs, "certificate signed by unknown authority"},
		{"a server that expired", mine, old, "certificate has expired"},
		{"a client that expired", old, theirs, "certificate has expired"},
		{"another name", append(mine[:6:6], "--tls-name", "elsewhere.example"), theirs, "elsewhere.example"},
		{"a plain server", mine, nil, "first record does not look like a TLS handshake"},
		{"a plain client", nil, theirs, "nobody spoke TLS within 3s"},
		{"another's key", append(mine[:2:2], "--tls-key", ca.file("theirs.key"), "--tls-ca", ca.file("ca.pem")), theirs, "private key does not match"},
	} {
		at := "tls"
		if c.serve == nil {
			at = "tcp"
		}
		receiver := start(t, append([]string{"xl-stream", "receive", "--host", b.spec, "--link-timeout", "3s", "--once", "--listen", at + ":127.0.0.1:0"}, c.serve...)...)
		dest := listening(t, receiver)
		_, address, _ := strings.Cut(dest, ":")
		if dest = "tls:" + address; c.send == nil {
			dest = "tcp:" + address
		}
		words := append([]string{"xl-stream", "send", "--host", a.spec, "--connect-timeout", "20s"}, c.send...)
		_, said, status := try(t, append(words, "g", dest)...)
		if strings.Contains(said, "private key") { // nobody came to it
			_ = receiver.cmd.Process.Signal(syscall.SIGTERM)
		}
		served := receiver.wait()
		if c.send != nil && status == 1 && !strings.Contains(said, "connect to tls") && !strings.Contains(said, "remote error: tls") {
			t.Errorf("%s: the sender is not told\n%s", c.name, said)
		}
		said += receiver.stderr.String()
		if status != 1 || served == 0 || !strings.Contains(said, c.says) {
			t.Errorf("%s: exit statuses %d and %d, %q is not said\n%s", c.name, status, served, c.says, said)
		}
		if d := a.domain(t, "g"); d == nil || d.Shutdown || d.Paused || d.LogDirty || b.domain(t, "g") != nil {
			t.Errorf("%s: %+v", c.name, d)
		}
	}
	if err := a.check(t, "g"); err != nil {
		t.Error(err)
	}
	for _, words := range [][]string{{"tls:127.0.0.1:1"}, append(mine[:2:2], "tls:127.0.0.1:1"), append(mine[:6:6], "tcp:127.0.0.1:1")} {
		words = append([]string{"xl-stream", "send", "--host", a.spec}, append(words[:len(words)-1:len(words)-1], "g", words[len(words)-1])...)
		if _, said, status := try(t, words...); status != 2 || !strings.Contains(said, "--tls-cert") {
			t.Errorf("%v: exit status %d\n%s", words, status, said)
		}
	}
}

// TestXLTLSCut: a link that is cut, or whose helper is killed, ends at both ends, and leaves the guest at the source.
func TestXLTLSCut(t *testing.T) {
	a, b := newHost(t, "--memory", "64M"), newHost(t, "--memory", "64M")
	ca := newAuthority(t)
	mine, theirs := ca.issue(t, "mine", "here.example", 0), ca.issue(t, "theirs", "127.0.0.1", 0)
	a.create(t, append(busy, "--kind", "hvm")...)
	for _, what := range []string{"cut", "half-open", "source's helper", "target's helper"} {
		receiver := start(t, append([]string{"xl-stream", "receive", "--host", b.spec, "--once", "--listen", "tls:127.0.0.1:0", "--link-timeout", "3s"}, theirs...)...)
		via, address := startRelay(t, strings.TrimPrefix(listening(t, receiver), "tls:"))
		words := append([]string{"xl-stream", "send", "--host", a.spec, "--link-timeout", "3s"}, mine...)
		sender := start(t, append(words, "g", "tls:"+strings.TrimPrefix(address, "tcp:"))...)
		for end := time.Now().Add(patience); b.domain(t, "g--incoming") == nil; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) || sender.over() {
				t.Fatalf("%s: no guest comes\n%s%s", what, sender.stderr.String(), receiver.stderr.String())
			}
		}
		switch what {
		case "cut":
			_ = via.cmd.Process.Signal(cutLink)
		case "half-open":
			_ = via.cmd.Process.Signal(halfOpen)
		case "source's helper":
			killTLS(t, sender)
		case "target's helper":
			killTLS(t, receiver)
		}
		status := []int{sender.wait(), receiver.wait()}
		_ = via.cmd.Process.Kill()
		said := sender.stderr.String() + receiver.stderr.String()
		if status[0] != 1 || status[1] == 0 || !strings.Contains(said, "runs on") {
			t.Errorf("%s: exit statuses %v\n%s", what, status, said)
		}
		if all, err := b.Domains(t.Context()); err != nil || len(all) > 0 {
			t.Errorf("%s: %+v, %v\n%s", what, all, err, said)
		}
		if err := a.check(t, "g"); err != nil {
			t.Errorf("%s: %v\n%s", what, err, said)
		}
	}
}

// killTLS kills the process that encrypts for a sender or receiver: its child of the same program.
func killTLS(t *testing.T, p *process) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var children []string
	for _, thread := range threads {
		text, _ := os.ReadFile(thread)
		children = append(children, strings.Fields(string(text))...)
	}
	for _, child := range children {
		line, _ := os.ReadFile(filepath.Join("/proc", child, "cmdline"))
		if words := strings.Split(string(line), "\x00"); len(words) > 1 && words[1] == "tls" {
			run(t, "kill", "-KILL", child)
			return
		}
	}
	t.Fatalf("nobody encrypts for %v", p.cmd.Args)
}
