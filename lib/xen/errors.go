package xen

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"xenferry/lib/guest"
)

// Error is a hypercall that Xen, or Linux on its way there, refused. errors.Is finds the errno, and fs.ErrNotExist where
// the domain is not there.
type Error struct {
	Call   string      // as Xen's headers name it, such as XEN_DOMCTL_getdomaininfo
	Domain guest.DomID // or noDomain
	Errno  unix.Errno
	Detail string // what of it was refused; may be empty
}

// noDomain is the Domain of calls that concern none (DOMID_INVALID).
const noDomain guest.DomID = 0x7FF4

func (e *Error) Error() string {
	s := e.Call
	if e.Domain != noDomain {
		s += fmt.Sprintf(" of domain %d", e.Domain)
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	s += ": " + e.Errno.Error()
	if hint := e.hint(); hint != "" {
		s += " (" + hint + ")"
	}
	return s
}

func (e *Error) Unwrap() error { return e.Errno }

// Is makes a missing domain match fs.ErrNotExist.
func (e *Error) Is(target error) bool {
	return target == fs.ErrNotExist && e.Errno == unix.ESRCH && e.Domain != noDomain
}

// hint is what usually causes the errno.
func (e *Error) hint() string {
	if e.Errno == unix.EINVAL {
		switch e.Call {
		case mmapBatch:
			return "the domain has no such frame"
		case shadowOp.String():
			return "a log of dirty pages is on already, or a PCI device is assigned to the domain"
		}
	}
	switch e.Errno {
	case unix.EPERM:
		return "this takes root in Xen's control domain"
	case unix.EACCES:
		return "Xen's interface is of another version, or its security policy denies it"
	case unix.ESRCH:
		return "there is no such domain"
	case unix.ENOSYS, unix.EOPNOTSUPP:
		return "this hypervisor is too old for it, or was built without it"
	case unix.ENOMEM:
		return "Xen has no memory left for it"
	case unix.EINVAL:
		return "this host, or Xen as it was built, does not offer what was asked for"
	case unix.EBUSY:
		return "another process is at work on it"
	case unix.EFAULT:
		return "Xen could not reach the caller's memory"
	}
	return ""
}

// errnoOf is the errno in err, 0 if there is none.
func errnoOf(err error) unix.Errno {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return 0
}

// fail makes err an Error, if it is an errno, and wraps it if not.
func fail(call string, id guest.DomID, err error) error {
	if err == nil {
		return nil
	}
	var e unix.Errno
	if errors.As(err, &e) {
		return &Error{Call: call, Domain: id, Errno: e}
	}
	return fmt.Errorf("%s of domain %d: %w", call, id, err)
}

// detail adds what was refused to an Error.
func detail(err error, format string, args ...any) error {
	var e *Error
	if errors.As(err, &e) {
		d := *e
		d.Detail = fmt.Sprintf(format, args...)
		return &d
	}
	return err
}
