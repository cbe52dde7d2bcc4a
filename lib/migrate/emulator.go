package migrate

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// stateFile is a file for an emulator's state, which nobody else sees and which goes with its last descriptor.
func stateFile() (*os.File, error) {
	f, err := os.CreateTemp("", "xl-stream-state-*")
	if err != nil {
		return nil, fmt.Errorf("file for the emulator's state: %w", err)
	}
	return f, os.Remove(f.Name())
}

// opened is an emulator's state to be written into a stream: nothing if there is none.
func opened(f *os.File) (io.ReadCloser, uint64, error) {
	if f == nil {
		return io.NopCloser(strings.NewReader("")), 0, nil
	}
	st, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if st.Size() == 0 {
		return nil, 0, fmt.Errorf("the emulator saved nothing")
	}
	_, err = f.Seek(0, io.SeekStart)
	return io.NopCloser(f), uint64(st.Size()), err
}
