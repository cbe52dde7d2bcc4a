package xenstore

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

// op is the kind of a message (enum xsd_sockmsg_type).
type op uint32

const (
	opDirectory        op = 1
	opRead             op = 2
	opGetPerms         op = 3
	opWatch            op = 4
	opUnwatch          op = 5
	opTransactionStart op = 6
	opTransactionEnd   op = 7
	opIntroduce        op = 8
	opRelease          op = 9
	opGetDomainPath    op = 10
	opWrite            op = 11
	opMkdir            op = 12
	opRemove           op = 13
	opSetPerms         op = 14
	opWatchEvent       op = 15
	opError            op = 16
	opIsIntroduced     op = 17
	opResume           op = 18
)

var opNames = [...]string{
	opDirectory: "directory", opRead: "read", opGetPerms: "get-perms", opWatch: "watch", opUnwatch: "unwatch",
	opTransactionStart: "transaction-start", opTransactionEnd: "transaction-end", opIntroduce: "introduce",
	opRelease: "release", opGetDomainPath: "get-domain-path", opWrite: "write", opMkdir: "mkdir", opRemove: "rm",
	opSetPerms: "set-perms", opWatchEvent: "watch-event", opError: "error", opIsIntroduced: "is-domain-introduced",
	opResume: "resume",
}

func (o op) String() string {
	if int(o) < len(opNames) && opNames[o] != "" {
		return opNames[o]
	}
	return fmt.Sprintf("op(%d)", uint32(o))
}

// message is one request, answer or event: a head of 16 octets, all u32 and in the machine's order (type, req_id, tx_id,
// len), and a body of at most 4096.
type message struct {
	op          op
	request, tx uint32
	body        string
}

const (
	headLen = 16
	maxBody = 4096 // XENSTORE_PAYLOAD_MAX
)

func (m message) append(b []byte) []byte {
	for _, v := range [...]uint32{uint32(m.op), m.request, m.tx, uint32(len(m.body))} {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	return append(b, m.body...)
}

func readMessage(r io.Reader) (message, error) {
	var head [headLen]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return message{}, err
	}
	field := func(i int) uint32 { return binary.NativeEndian.Uint32(head[4*i:]) }
	n := field(3)
	if n > maxBody {
		return message{}, fmt.Errorf("xenstored sends a %v of %d octets, more than the %d that there can be", op(field(0)), n, maxBody)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return message{}, err
	}
	return message{op: op(field(0)), request: field(1), tx: field(2), body: string(body)}, nil
}

const errAgain = unix.EAGAIN

// errnos is what an error's body can be (xsd_errors).
var errnos = map[string]unix.Errno{
	"EINVAL": unix.EINVAL, "EACCES": unix.EACCES, "EEXIST": unix.EEXIST, "EISDIR": unix.EISDIR, "ENOENT": unix.ENOENT,
	"ENOMEM": unix.ENOMEM, "ENOSPC": unix.ENOSPC, "EIO": unix.EIO, "ENOTEMPTY": unix.ENOTEMPTY, "ENOSYS": unix.ENOSYS,
	"EROFS": unix.EROFS, "EBUSY": unix.EBUSY, "EAGAIN": unix.EAGAIN, "EISCONN": unix.EISCONN, "E2BIG": unix.E2BIG,
	"EPERM": unix.EPERM,
}

// errnoOf is the error that an error's body names: a unix.Errno if it is known.
func errnoOf(body string) error {
	name := strings.TrimRight(body, "\x00")
	if e, ok := errnos[name]; ok {
		return e
	}
	return fmt.Errorf("xenstored says %q", name)
}
