package emulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// session is one client of the monitor.
type session struct {
	e     *Emulator
	conn  *net.UnixConn
	ready bool                // capabilities are negotiated
	fds   map[string]*os.File // by the name under which they can be opened
	given []*os.File          // came with what is being read
}

type request struct {
	Execute   string          `json:"execute"`
	Arguments json.RawMessage `json:"arguments"`
	ID        json.RawMessage `json:"id,omitempty"`
}

const greeting = `{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": "simulated"}, "capabilities": []}}` + "\n"

// serve answers one client until it leaves.
func serve(e *Emulator, c *net.UnixConn) {
	s := &session{e: e, conn: c, fds: map[string]*os.File{}}
	defer func() {
		_ = c.Close()
		for _, f := range s.fds {
			_ = f.Close()
		}
		for _, f := range s.given {
			_ = f.Close()
		}
	}()
	if _, err := io.WriteString(c, greeting); err != nil {
		return
	}
	in := json.NewDecoder(s)
	for {
		var r request
		if err := in.Decode(&r); err != nil {
			return
		}
		result, err := s.execute(r)
		answer := map[string]any{"return": result}
		if err != nil {
			answer = map[string]any{"error": map[string]string{"class": "GenericError", "desc": err.Error()}}
		}
		if r.ID != nil {
			answer["id"] = r.ID
		}
		if json.NewEncoder(c).Encode(answer) != nil {
			return
		}
	}
}

// Read reads the client's octets, and keeps the descriptors that come with them.
func (s *session) Read(p []byte) (int, error) {
	rights := make([]byte, unix.CmsgSpace(4))
	n, m, _, _, err := s.conn.ReadMsgUnix(p, rights)
	switch {
	case err != nil:
		return 0, err // n is -1 then, which no reader of a Reader expects
	case n == 0:
		return 0, io.EOF
	}
	messages, _ := unix.ParseSocketControlMessage(rights[:m])
	for _, c := range messages {
		fds, _ := unix.ParseUnixRights(&c)
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			s.given = append(s.given, os.NewFile(uintptr(fd), "descriptor of a client"))
		}
	}
	return n, nil
}

// execute does a command. What it returns is what QEMU returns.
func (s *session) execute(r request) (any, error) {
	f := commands[r.Execute]
	switch {
	case f == nil:
		return nil, fmt.Errorf("the command %s has not been found", r.Execute)
	case !s.ready && r.Execute != "qmp_capabilities":
		return nil, errors.New("expecting capabilities negotiation with 'qmp_capabilities'")
	}
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	if s.e.running {
		s.e.devices.step()
	}
	return f(s, r.Arguments)
}

type nothing struct{}

// commands are those of QEMU that a toolstack uses to save, load and migrate, and one of ours to look at the devices.
var commands = map[string]func(s *session, args json.RawMessage) (any, error){
	"qmp_capabilities": func(s *session, _ json.RawMessage) (any, error) {
		s.ready = true
		return nothing{}, nil
	},
	"query-status": func(s *session, _ json.RawMessage) (any, error) {
		status := map[bool]string{true: "running", false: "paused"}[s.e.running]
		return map[string]any{"running": s.e.running, "status": status}, nil
	},
	"stop": func(s *session, _ json.RawMessage) (any, error) {
		if s.e.running {
			s.e.running = false
			_, _ = io.WriteString(s.conn, `{"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 0}}`+"\n")
		}
		return nothing{}, nil
	},
	"cont": func(s *session, _ json.RawMessage) (any, error) {
		s.e.running = true
		return nothing{}, nil
	},
	"xen-set-global-dirty-log": func(s *session, args json.RawMessage) (any, error) {
		var a struct{ Enable *bool }
		if err := json.Unmarshal(args, &a); err != nil || a.Enable == nil {
			return nil, errors.New("parameter 'enable' is missing")
		}
		s.e.logging = *a.Enable
		return nothing{}, nil
	},
	"add-fd":                 (*session).addFD,
	"xen-save-devices-state": (*session).save,
	"xen-load-devices-state": (*session).load,
	"x-xenferry-devices": func(s *session, _ json.RawMessage) (any, error) {
		return map[string]any{"steps": s.e.devices.steps, "dirty-log": s.e.logging}, nil
	},
}

func (s *session) addFD(json.RawMessage) (any, error) {
	if len(s.given) == 0 {
		return nil, errors.New("no file descriptor supplied via SCM_RIGHTS")
	}
	f := s.given[0]
	s.given = s.given[1:]
	id := len(s.fds) + 1
	s.fds[fmt.Sprintf("/dev/fdset/%d", id)] = f
	return map[string]int{"fdset-id": id, "fd": int(f.Fd())}, nil
}

// filename takes the one argument that saving and loading need.
func filename(args json.RawMessage) (string, error) {
	var a struct {
		Filename string
		Live     *bool
	}
	if err := json.Unmarshal(args, &a); err != nil || a.Filename == "" {
		return "", errors.New("parameter 'filename' is missing")
	}
	return a.Filename, nil
}

func (s *session) save(args json.RawMessage) (any, error) {
	name, err := filename(args)
	if err != nil {
		return nil, err
	}
	if s.e.running {
		return nil, errors.New("the devices are running: stop comes first")
	}
	f, err := s.open(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(s.e.devices.save())
	return nothing{}, errors.Join(err, f.Close())
}

// open opens a file by its name, or what was given as one. Of that, as with QEMU, the access mode must be the very one that
// is needed: what can be read and written is neither to read nor to write.
func (s *session) open(name string, flag int) (*os.File, error) {
	given := s.fds[name]
	switch {
	case given == nil && strings.HasPrefix(name, "/dev/fdset/"):
		return nil, fmt.Errorf("there is no %s", name)
	case given == nil:
		return os.OpenFile(name, flag, 0o600)
	}
	has, err := unix.FcntlInt(given.Fd(), unix.F_GETFL, 0)
	if err == nil && has&unix.O_ACCMODE != flag&unix.O_ACCMODE {
		err = fmt.Errorf("unable to open %s: %w", name, fs.ErrPermission)
	}
	fd := -1
	if err == nil {
		fd, err = unix.FcntlInt(given.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// load replaces the state of devices that are stopped.
func (s *session) load(args json.RawMessage) (any, error) {
	name, err := filename(args)
	if err != nil {
		return nil, err
	}
	if s.e.running {
		return nil, errors.New("the devices are running: stop comes first")
	}
	f, err := s.open(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	return nothing{}, s.e.devices.load(b)
}
