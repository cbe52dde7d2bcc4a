package xenstore

import (
	"net"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// daemon is a small xenstored: one flat map of nodes, transactions by copying it, all permissions granted.
type daemon struct {
	mu         sync.Mutex
	nodes      map[string]string
	perms      map[string]string
	generation int
	domains    map[string]bool
	clients    []*client
}

// client is one connection to it.
type client struct {
	d       *daemon
	conn    net.Conn
	out     chan message // written by a goroutine of its own, as events come in between
	watches map[string]string
	txs     map[uint32]*snapshot
	nextTx  uint32
}

type snapshot struct {
	nodes      map[string]string
	generation int
	wrote      []string
}

// dial is a new connection to a daemon.
func (d *daemon) dial(t *testing.T) *Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	cl := &client{d: d, conn: theirs, out: make(chan message, 64), watches: map[string]string{}, txs: map[uint32]*snapshot{}}
	d.mu.Lock()
	d.clients = append(d.clients, cl)
	d.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() {
		for m := range cl.out {
			if _, err := theirs.Write(m.append(nil)); err != nil {
				return
			}
		}
	})
	wg.Go(func() {
		defer close(cl.out)
		for {
			m, err := readMessage(theirs)
			if err != nil {
				d.mu.Lock()
				d.clients = slices.DeleteFunc(d.clients, func(c *client) bool { return c == cl })
				d.mu.Unlock()
				return
			}
			cl.serve(m)
		}
	})
	c := New(ours)
	t.Cleanup(func() {
		c.Close()
		theirs.Close()
		wg.Wait()
	})
	return c
}

func newDaemon() *daemon {
	return &daemon{nodes: map[string]string{"/": ""}, perms: map[string]string{}, domains: map[string]bool{}}
}

// set changes a node from outside, and fires watches.
func (d *daemon) set(path, value string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nodes[path] = value
	d.changed(path)
}

// changed fires watches at or above path. d is locked.
func (d *daemon) changed(path string) {
	d.generation++
	for _, cl := range d.clients {
		for token, at := range cl.watches {
			if path == at || strings.HasPrefix(path, at+"/") {
				cl.out <- message{op: opWatchEvent, body: z(path) + z(token)}
			}
		}
	}
}

func (cl *client) serve(m message) {
	cl.d.mu.Lock()
	defer cl.d.mu.Unlock()
	body, errno := cl.do(m)
	if errno != "" {
		cl.out <- message{op: opError, request: m.request, tx: m.tx, body: z(errno)}
		return
	}
	cl.out <- message{op: m.op, request: m.request, tx: m.tx, body: body}
	if m.op == opWatch {
		args := split(m.body)
		cl.out <- message{op: opWatchEvent, body: z(args[0]) + z(args[1])}
	}
}

// do is one request; the second result is an error's name.
func (cl *client) do(m message) (body, errno string) {
	d := cl.d
	nodes := d.nodes
	var tx *snapshot
	if m.tx != 0 {
		if tx = cl.txs[m.tx]; tx == nil {
			return "", "ENOENT"
		}
		nodes = tx.nodes
	}
	path, rest, _ := strings.Cut(m.body, "\x00")
	_, there := nodes[path]
	wrote := func() {
		if tx != nil {
			tx.wrote = append(tx.wrote, path)
		} else {
			d.changed(path)
		}
	}
	switch m.op {
	case opRead, opDirectory, opGetPerms, opSetPerms:
		if !there {
			return "", "ENOENT"
		}
	}
	switch m.op {
	case opRead:
		return nodes[path], ""
	case opWrite:
		nodes[path] = rest
		wrote()
		return "OK\x00", ""
	case opMkdir:
		if !there {
			nodes[path] = ""
			wrote()
		}
		return "OK\x00", ""
	case opRemove:
		for p := range nodes {
			if p == path || strings.HasPrefix(p, path+"/") {
				delete(nodes, p)
			}
		}
		wrote()
		return "OK\x00", ""
	case opDirectory:
		var names []string
		for p := range nodes {
			if below, ok := strings.CutPrefix(p, path+"/"); ok && !strings.Contains(below, "/") {
				names = append(names, z(below))
			}
		}
		sort.Strings(names)
		return strings.Join(names, ""), ""
	case opGetPerms:
		return d.perms[path], ""
	case opSetPerms:
		d.perms[path] = rest
		return "OK\x00", ""
	case opWatch:
		cl.watches[strings.TrimSuffix(rest, "\x00")] = path
		return "OK\x00", ""
	case opUnwatch:
		delete(cl.watches, strings.TrimSuffix(rest, "\x00"))
		return "OK\x00", ""
	case opTransactionStart:
		cl.nextTx++
		copied := map[string]string{}
		for k, v := range d.nodes {
			copied[k] = v
		}
		cl.txs[cl.nextTx] = &snapshot{copied, d.generation, nil}
		return z(strconv.Itoa(int(cl.nextTx))), ""
	case opTransactionEnd:
		delete(cl.txs, m.tx)
		if path == "F" {
			return "OK\x00", ""
		}
		if tx.generation != d.generation {
			return "", "EAGAIN"
		}
		d.nodes = tx.nodes
		for _, p := range tx.wrote {
			d.changed(p)
		}
		return "OK\x00", ""
	case opIntroduce:
		d.domains[path] = true
		d.perms["introduce "+path] = rest
		return "OK\x00", ""
	case opRelease, opResume:
		if !d.domains[path] {
			return "", "ENOENT"
		}
		if m.op == opRelease {
			delete(d.domains, path)
		}
		return "OK\x00", ""
	case opIsIntroduced:
		if d.domains[path] {
			return "T\x00", ""
		}
		return "F\x00", ""
	case opGetDomainPath:
		return z("/local/domain/" + path), ""
	}
	return "", "ENOSYS"
}
