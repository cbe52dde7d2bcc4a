package xen

import (
	"os"

	"golang.org/x/sys/unix"
)

// timerSlack is how late a timer may be, in ns.
const timerSlack = "4000000"

// relaxTimers lets the timers of this process be late. The Go runtime's monitor sleeps 20 µs at a time wherever system
// calls last longer than that, as writes of whole batches do. In a PV dom0 each sleep is two switches, a hypercall for the
// timer and two system calls for the clock: that thread took a quarter of a save's CPU time. Who works on a real host waits
// for milliseconds at least, but for frames that a pager brings back, which take that long, too. Threads to come inherit it from
// those that there are; where it is not allowed, all is only slower.
func relaxTimers() {
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, t := range tasks {
		// Not os.WriteFile: the runtime would ask to be told of each file's events.
		if fd, err := unix.Open("/proc/"+t.Name()+"/timerslack_ns", unix.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
			_, _ = unix.Write(fd, []byte(timerSlack))
			_ = unix.Close(fd)
		}
	}
}
