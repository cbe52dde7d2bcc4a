package progress

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"xenferry/lib/transport"
)

// Output is where statistics go.
type Output struct {
	word string   // a file's name; empty for nowhere
	file *os.File // of fd:N
}

// ParseOutput reads FILE or fd:N, and refuses what leads into one of the streams, which are descriptors, or to a descriptor
// that this process was not given. No word is nowhere.
func ParseOutput(word string, streams ...int) (Output, error) {
	o := Output{word: word}
	var st unix.Stat_t
	if number, ok := strings.CutPrefix(word, "fd:"); ok {
		fd, err := strconv.Atoi(number)
		if err != nil || fd < 0 {
			return o, fmt.Errorf("%s: no descriptor", word)
		}
		if err := transport.Given(fd); err != nil {
			return o, err
		}
		if err := unix.Fstat(fd, &st); err != nil {
			return o, fmt.Errorf("descriptor %d: %w", fd, err)
		}
		o.file = os.NewFile(uintptr(fd), word)
	} else if word == "" || unix.Stat(word, &st) != nil {
		return o, nil
	}
	for _, s := range streams {
		if transport.SameFile(s, &st) {
			return o, fmt.Errorf("%s leads where descriptor %d does, which is a stream's", word, s)
		}
	}
	return o, nil
}

// Open opens it, a file emptied first; nil for nowhere.
func (o Output) Open() (*os.File, error) {
	if o.word == "" || o.file != nil {
		return o.file, nil
	}
	return os.Create(o.word)
}
