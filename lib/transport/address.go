package transport

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Scheme is a way to another host.
type Scheme string

// The schemes, and what an Address of each looks like. Those marked L can be listened to.
const (
	Exec      Scheme = "exec"       // exec:COMMAND: a shell command, its standard input and output
	SSH       Scheme = "ssh"        // ssh:[USER@]HOST: the user's ssh, which runs a command there
	TCP       Scheme = "tcp"        // L tcp:HOST:PORT
	TLS       Scheme = "tls"        // L tls:HOST:PORT: TLS over tcp, by a command; see Link.Through
	Unix      Scheme = "unix"       // L unix:PATH
	VSock     Scheme = "vsock"      // L vsock:CID:PORT; to listen, vsock:PORT for every CID of this machine
	VSockUnix Scheme = "vsock-unix" // L vsock-unix:PATH:PORT: a virtual machine behind a unix socket (Firecracker, Cloud Hypervisor)
	FD        Scheme = "fd"         // fd:N or fd:IN,OUT: descriptors of this process
)

// Address is where a link leads, taken apart.
type Address struct {
	Scheme  Scheme
	Command string // Exec
	Host    string // SSH: of ssh; TCP, TLS: HOST:PORT
	Path    string // Unix, VSockUnix
	CID     uint32 // VSock
	Port    uint32 // VSock, VSockUnix
	In, Out int    // FD
}

// anyCID is every CID of this machine (VMADDR_CID_ANY).
const anyCID = 1<<32 - 1

// ParseAddress takes an address apart. listen says that it is to be listened to, which exec, ssh and fd cannot be. The
// error says what was expected.
func ParseAddress(s string, listen bool) (a Address, err error) {
	scheme, rest, ok := strings.Cut(s, ":")
	a.Scheme = Scheme(scheme)
	want := ""
	switch {
	case !ok || rest == "":
		want = "SCHEME:WHERE"
	case listen && (a.Scheme == Exec || a.Scheme == SSH || a.Scheme == FD):
		want = "tcp, tls, unix, vsock or vsock-unix to listen"
	case a.Scheme == Exec:
		a.Command = rest
	case a.Scheme == SSH:
		if a.Host = rest; strings.HasPrefix(rest, "-") || strings.ContainsAny(rest, " \t\n") {
			want = "ssh:[USER@]HOST"
		}
	case a.Scheme == TCP, a.Scheme == TLS:
		a.Host = rest
		if _, port, e := net.SplitHostPort(rest); e != nil || port == "" {
			want = scheme + ":HOST:PORT"
		}
	case a.Scheme == Unix:
		a.Path = rest
	case a.Scheme == VSock:
		if want = "vsock:CID:PORT"; a.vsock(rest, listen) {
			want = ""
		}
	case a.Scheme == VSockUnix:
		at := strings.LastIndexByte(rest, ':')
		if want = "vsock-unix:PATH:PORT"; at > 0 && number(rest[at+1:], &a.Port) {
			a.Path, want = rest[:at], ""
		}
	case a.Scheme == FD:
		if want = "fd:N or fd:IN,OUT"; a.descriptors(rest) {
			want = ""
		}
	default:
		want = "one of exec, ssh, tcp, tls, unix, vsock, vsock-unix, fd"
	}
	if want != "" {
		return a, fmt.Errorf("address %q: want %s", s, want)
	}
	return a, nil
}

// vsock takes CID:PORT, or PORT alone to listen.
func (a *Address) vsock(s string, listen bool) bool {
	cid, port, ok := strings.Cut(s, ":")
	if !ok && listen {
		a.CID = anyCID
		return number(s, &a.Port)
	}
	return ok && number(cid, &a.CID) && number(port, &a.Port)
}

// descriptors takes N or IN,OUT.
func (a *Address) descriptors(s string) bool {
	in, out, two := strings.Cut(s, ",")
	if !two {
		out = in
	}
	var i, o uint32
	ok := number(in, &i) && number(out, &o) && i < 1<<20 && o < 1<<20
	a.In, a.Out = int(i), int(o)
	return ok
}

func number(s string, n *uint32) bool {
	v, err := strconv.ParseUint(s, 10, 32)
	*n = uint32(v)
	return err == nil
}
