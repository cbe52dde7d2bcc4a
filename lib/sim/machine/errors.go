package machine

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// Error is a refusal: what was asked, of which domain, what Xen's error number for it is, and why in words.
// errors.Is finds the number, and fs.ErrNotExist where the domain is not there.
type Error struct {
	Op     string      `json:"op"`
	Domain guest.DomID `json:"domain"`
	Errno  unix.Errno  `json:"errno"`
	Why    string      `json:"why"`
	Absent bool        `json:"absent,omitempty"` // there is no such domain
}

func (e *Error) Error() string {
	if e.Absent {
		return fmt.Sprintf("%s domain %d: no such domain", e.Op, e.Domain)
	}
	return fmt.Sprintf("%s domain %d: %s: %v", e.Op, e.Domain, e.Why, e.Errno)
}

func (e *Error) Unwrap() error { return e.Errno }

// Is makes a missing domain match fs.ErrNotExist.
func (e *Error) Is(target error) bool { return e.Absent && target == fs.ErrNotExist }

// refusal is an Error that does not yet know what was asked and of whom.
type refusal struct {
	errno unix.Errno
	why   string
}

func (r *refusal) Error() string { return r.why + ": " + r.errno.Error() }
func (r *refusal) Unwrap() error { return r.errno }

func refuse(errno unix.Errno, format string, args ...any) error {
	return &refusal{errno, fmt.Sprintf(format, args...)}
}

// wrap puts the operation and the domain to a refusal.
func wrap(op string, id guest.DomID, err error) error {
	if r, ok := err.(*refusal); ok {
		return &Error{Op: op, Domain: id, Errno: r.errno, Why: r.why}
	}
	return err
}

// with runs f on a domain under the machine's lock.
func (m *Machine) with(op string, id guest.DomID, f func(d *domain) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.domain(id)
	if d == nil {
		return &Error{Op: op, Domain: id, Errno: unix.ESRCH, Absent: true}
	}
	return wrap(op, id, f(d))
}

// domain is the domain id, dying ones included, or nil.
func (m *Machine) domain(id guest.DomID) *domain {
	if int(id) >= len(m.domains) {
		return nil
	}
	return m.domains[id]
}

// Reason takes what refused one frame of Machine.Map apart.
func Reason(err error) (unix.Errno, string) { return errnoOf(err), whyOf(err) }

// FrameError is Reason's inverse: why one frame could not be mapped.
func FrameError(errno unix.Errno, why string) error { return &refusal{errno, why} }

// errnoOf and whyOf take a refusal apart, to say more in front of it.
func errnoOf(err error) unix.Errno {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return unix.EINVAL
}

func whyOf(err error) string {
	var r *refusal
	if errors.As(err, &r) {
		return r.why
	}
	return err.Error()
}
