package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/spf13/pflag"

	"xenferry/lib/cli"
	"xenferry/lib/transport"
)

// secured is the options of a link over TLS: files in PEM.
type secured struct {
	cert, key string // this side's certificate, with what is between it and the authority, and its key
	ca        string // the authorities that the other side's certificate may be from
	name      string // dialing: whose certificate it must be
}

func (o *secured) flags(flags *pflag.FlagSet) {
	flags.StringVar(&o.cert, "tls-cert", "", "")
	flags.StringVar(&o.key, "tls-key", "", "")
	flags.StringVar(&o.ca, "tls-ca", "", "")
}

// check refuses options that do not fit to whether TLS is wanted.
func (o *secured) check(wanted bool) error {
	given := o.cert != "" || o.key != "" || o.ca != "" || o.name != ""
	switch {
	case wanted && (o.cert == "" || o.key == "" || o.ca == ""):
		return cli.Usagef("tls wants --tls-cert, --tls-key and --tls-ca: both sides show a certificate")
	case given && !wanted:
		return cli.Usagef("--tls-cert, --tls-key, --tls-ca and --tls-name are for tls:HOST:PORT")
	}
	return nil
}

// words is the command line of the process that encrypts: it dials if there is a name, else it was dialed.
func (o *secured) words(patience time.Duration) []string {
	return []string{os.Args[0], "tls", "--link-timeout", patience.String(), "--tls-cert", o.cert, "--tls-key", o.key, "--tls-ca", o.ca,
		"--tls-name", o.name}
}

// config reads the files.
func (o *secured) config() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(o.cert, o.key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s and key %s: %w", o.cert, o.key, err)
	}
	text, err := os.ReadFile(o.ca)
	if err != nil {
		return nil, err
	}
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: no certificate in it", o.ca)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, ServerName: o.name,
		RootCAs: authorities, ClientCAs: authorities, ClientAuth: tls.RequireAndVerifyClientCert,
	}, nil
}

// encrypt is the command tls, which send and receive run: it passes what comes on standard input on to the socket that is
// descriptor 3, encrypted, and what comes from there to standard output, and says on descriptor 4 when both ends agreed.
func encrypt(ctx context.Context, env *cli.Env, args []string) error {
	var o secured
	var patience time.Duration
	flags := cli.Flags(env)
	o.flags(flags)
	flags.DurationVar(&patience, "link-timeout", linkTimeout, "")
	flags.StringVar(&o.name, "tls-name", "", "")
	words, err := cli.Parse(flags, args)
	if err == nil {
		err = o.check(true)
	}
	switch {
	case err != nil:
		return err
	case len(words) > 0:
		return cli.Usagef("tls takes no word such as %q", words[0])
	}
	// It ends with its descriptors, not by a terminal's ^C, which is for send or receive to answer.
	ctx = context.WithoutCancel(ctx)
	status := os.NewFile(transport.FilterStatus, "status")
	c, err := o.agree(ctx, patience)
	if err != nil {
		if _, e := io.WriteString(status, err.Error()); e == nil {
			os.Exit(cli.ExitFailed) // send or receive says it
		}
		return err
	}
	_, err = io.WriteString(status, transport.FilterReady)
	if err = errors.Join(err, status.Close()); err != nil {
		return err
	}
	return pass(c)
}

// agree makes the socket a TLS connection.
func (o *secured) agree(ctx context.Context, patience time.Duration) (*tls.Conn, error) {
	config, err := o.config()
	if err != nil {
		return nil, err
	}
	f := os.NewFile(transport.FilterSocket, "socket")
	socket, err := net.FileConn(f)
	if err == nil { // for that has set its own
		err = (&transport.Link{In: f}).KeepAlive(patience)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", transport.FilterSocket, err)
	}
	c := tls.Server(socket, config)
	if o.name != "" {
		c = tls.Client(socket, config)
	}
	if err := c.HandshakeContext(ctx); err != nil { // whoever runs this has its patience
		return nil, fmt.Errorf("TLS with %s: %w", socket.RemoteAddr(), err)
	}
	return c, nil
}

// pass passes octets on in both directions, until both have ended. One that ends in order ends so on the other side, by
// close_notify or a closed pipe; one that is cut ends all at once.
func pass(c *tls.Conn) error {
	ended := make(chan error, 2)
	go func() {
		err := copyAll(c, os.Stdin)
		if err == nil {
			err = c.CloseWrite()
		}
		ended <- passed("to the other side", err)
	}()
	go func() {
		err := copyAll(os.Stdout, c)
		ended <- passed("from the other side", errors.Join(err, os.Stdout.Close()))
	}()
	for range 2 {
		if err := <-ended; err != nil {
			return err
		}
	}
	return c.Close()
}

// copyAll copies in pieces that make the most of a record of TLS and of a pipe.
func copyAll(dst io.Writer, src io.Reader) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, 256<<10))
	return err
}

func passed(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("TLS, %s: %w", what, err)
}
