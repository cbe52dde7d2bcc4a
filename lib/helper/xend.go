package helper

import (
	"fmt"
	"strconv"
)

// RefuseXend is an error if a command line, without the program, is one of xend's, else nil. All its words are numbers:
//
//	xc_save     iofd domid maxit maxf flags
//	xc_restore  iofd domid store_evtchn console_evtchn hvm pae apic [superpages [checkpointed]]
//
// Both have the legacy stream. Source: Xen 4.0 to 4.4, tools/xcutils and tools/python/xen/xend/XendCheckpoint.py.
func RefuseXend(args []string) error {
	for _, word := range args {
		if _, err := strconv.ParseUint(word, 10, 64); err != nil {
			return nil
		}
	}
	const caller = "xend of Xen 4.4 or older"
	switch len(args) {
	case 5:
		return refuseLegacy(caller, false)
	case 7, 8, 9:
		return refuseLegacy(caller, true)
	}
	return nil
}

// refuseLegacy is the refusal of a caller that has no other stream than the legacy one.
func refuseLegacy(caller string, restore bool) error {
	if restore {
		return fmt.Errorf("called as by %s, with a legacy stream to restore: convert-legacy makes of such an image one that Xen 4.6 and newer restore", caller)
	}
	return fmt.Errorf("called as by %s, which expects the legacy stream: nobody writes that any more", caller)
}
