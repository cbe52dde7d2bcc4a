// Command into has xc-restore load a stream into a domain that somebody else has made: as the helper that LIBXL_SAVE_HELPER
// names it stands between libxl, which makes the domain and its event channels, and $INTO, an xc-restore that knows nothing of
// libxl.
//
// Exit status: 0, and what became of it is in the messages; 2 if it is not called by libxl to restore.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"

	"xenferry/lib/guest"
	"xenferry/lib/helper"
)

func main() {
	call, err := helper.ParseCall(os.Args[1:])
	if err != nil || !call.Restore {
		fmt.Fprintln(os.Stderr, "into: not called by libxl to restore:", err)
		os.Exit(2)
	}
	ctx := context.Background()
	conn := helper.NewConn(call, os.Stdin, os.Stdout)
	result := int32(0)
	if err := load(ctx, call, conn); err != nil {
		conn.Log(helper.LevelError, "into: "+err.Error())
		result = -1
	}
	if err := conn.Complete(ctx, result, 0); err != nil {
		fmt.Fprintln(os.Stderr, "into:", err)
	}
}

// rings is what xc-restore says of a domain that it did not make.
var rings = regexp.MustCompile(`the ring of xenstore is in frame (0x[0-9a-f]+), of the console in (0x[0-9a-f]+)`)

// load runs xc-restore on the call's stream and domain, and tells libxl where the rings are.
func load(ctx context.Context, call *helper.Call, conn *helper.Conn) error {
	if err := conn.StaticDataDone(ctx, 0); err != nil {
		return err
	}
	restore := exec.Command(os.Getenv("INTO"), "--fd", "3", "--paused", "--domid", strconv.Itoa(int(call.Domain)),
		"--store-evtchn", strconv.Itoa(int(call.StorePort)), "--console-evtchn", strconv.Itoa(int(call.ConsolePort)))
	var said bytes.Buffer
	restore.Stderr = io.MultiWriter(os.Stderr, &said)
	restore.ExtraFiles = []*os.File{os.NewFile(uintptr(call.Stream), "stream")}
	if err := restore.Run(); err != nil {
		return fmt.Errorf("%v: %w", restore, err)
	}
	m := rings.FindSubmatch(said.Bytes())
	if m == nil {
		return fmt.Errorf("%v does not say where the rings are", restore)
	}
	var gfns [2]guest.GFN
	for i := range gfns {
		n, err := strconv.ParseUint(string(m[i+1]), 0, 64)
		if err != nil {
			return err
		}
		gfns[i] = guest.GFN(n)
	}
	return conn.RestoreResults(gfns[0], gfns[1])
}
