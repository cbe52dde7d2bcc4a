package guest

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Access runs f, which touches pages of a Mapping. A page that cannot be touched (SIGBUS, SIGSEGV), because its frame
// vanished, is an error of Access's then and not the end of the process. f must not leave anything locked or half-done
// that matters after that.
func Access(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch r := recover().(type) {
		case nil:
		case interface {
			runtime.Error
			Addr() uintptr
		}:
			err = fmt.Errorf("a mapped page is gone: fault at %#x: %w", r.Addr(), r)
		default:
			panic(r)
		}
	}()
	return f()
}
