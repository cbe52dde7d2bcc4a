package migrate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"xenferry/lib/emulator"
	"xenferry/lib/guest"
	"xenferry/lib/host"
	"xenferry/lib/xenstore"
)

// libxl is who is asked for the configuration of a domain that libxl made.
type libxl struct {
	folder string // where libxl keeps what it knows of domains
	xl     string // xl's name or path
	now    func(ctx context.Context) (Now, error)
	log    zerolog.Logger
}

// ErrNoConfig says that libxl has no configuration of a domain: somebody else made it.
var ErrNoConfig = errors.New("libxl has no configuration of the domain")

// LibxlConfig is libxl's own configuration of a domain, as it is now, or ErrNoConfig. It logs whence that is.
func LibxlConfig(ctx context.Context, h host.Host, d guest.Info, log zerolog.Logger) ([]byte, error) {
	now := func(ctx context.Context) (Now, error) {
		c, err := xenstore.Dial(ctx)
		if err != nil {
			return Now{}, err
		}
		defer func() { _ = c.Close() }()
		var cpus func(context.Context) ([]int, error)
		if e := emulator.Open(h, d); e != nil {
			cpus = e.CPUs
		}
		return nowIn(ctx, c, d, cpus)
	}
	return libxl{"/var/lib/xen", "xl", now, log}.config(ctx, d)
}

// config asks xl, which knows what its release of libxl keeps where, and holds libxl's locks meanwhile. Without an answer from it
// the file that libxl wrote when the domain was made is renewed here.
func (l libxl) config(ctx context.Context, d guest.Info) ([]byte, error) {
	name := fmt.Sprintf("%s/userdata-d.%d.%v.libxl-json", l.folder, d.ID, d.UUID)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoConfig
	}
	if err != nil {
		return nil, err
	}
	listed, err := l.list(ctx, d)
	if err == nil {
		l.log.Info().Msgf("configuration from %s, as of now by xl list -l", name)
		return listed, nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	b = bytes.TrimSuffix(b, []byte{0})
	if d.Name == "" {
		l.log.Warn().Err(err).Msgf("configuration from %s, as it was when the domain was made: nobody knows more", name)
		return b, nil
	}
	now, e := l.now(ctx)
	if e == nil {
		b, e = Renew(b, d, now)
	}
	if e != nil {
		return nil, errors.Join(fmt.Errorf("configuration of domain %d: %w", d.ID, e), err)
	}
	l.log.Warn().Err(err).Msgf("configuration from %s, as it was when the domain was made, but for its name, vCPUs and memory, and disks "+
		"and interfaces that it no longer has: xl could not tell", name)
	return b, nil
}

// listTime is what xl may take. It waits for whoever has the domain's lock, and 10 s for QEMU.
const listTime = time.Minute

// list is the configuration that xl save would write, which xl list -l shows two levels deep, and with the number
// that the domain was made with. xl save has none there, unless it is told to keep it.
func (l libxl) list(ctx context.Context, d guest.Info) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, listTime, fmt.Errorf("xl list does not answer within %v", listTime))
	defer cancel()
	var said bytes.Buffer
	c := exec.CommandContext(ctx, l.xl, "list", "-l", strconv.Itoa(int(d.ID)))
	c.Stderr, c.WaitDelay = &said, time.Second
	out, err := c.Output()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err == nil {
		out, err = listed(out, d.UUID)
	}
	if err != nil {
		return nil, fmt.Errorf("xl list -l %d: %w: %s", d.ID, err, strings.TrimSpace(said.String()))
	}
	return out, nil
}

// listed is the configuration in what xl list -l printed of one domain, written as libxl writes one by itself: without the
// indentation that it has there, and with a newline behind it where the list had one. libxl of json-c, as Xen 4.21 may have, writes
// none; xl adds one always.
func listed(out []byte, id uuid.UUID) ([]byte, error) {
	var all []struct {
		Config json.RawMessage `json:"config"`
	}
	var c config
	switch err := json.Unmarshal(out, &all); {
	case err != nil:
		return nil, fmt.Errorf("what it prints is no JSON, which output_format in xl.conf may be why: %w", err)
	case len(all) != 1:
		return nil, fmt.Errorf("%d domains", len(all))
	}
	b := []byte(all[0].Config)
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, err
	}
	if c.Create.UUID != id {
		return nil, fmt.Errorf("the domain's UUID is %v, not %v", c.Create.UUID, id)
	}
	if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
		b = bytes.ReplaceAll(b, b[i:len(b)-1], []byte("\n"))
	}
	if bytes.HasSuffix(out, []byte("\n\n")) {
		b = append(b, '\n')
	}
	return dropNumber(b)
}
