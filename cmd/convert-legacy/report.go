package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"xenferry/lib/legacy"
	"xenferry/lib/record"
)

// report is the file of --report, a JSON object. Its parts are written as they come, so that it takes no memory:
//
//	items    what the image holds, in its order: offset and octets in the input, item, detail, became (the record that it
//	         became, if any), dropped (what was not converted, and why). Page batches that follow one another are one item,
//	         with their number in batches, and pages in pages
//	image    width and guest_type, as they were given or found out; octets read; checkpoints that are whole
//	output   octets written
//	complete whether all of the image was converted
//	problems what was wrong with it: offset, item, reason
//	missing  what the output lacks for a whole one
//
// A nil report writes nothing.
type report struct {
	file  *os.File
	w     *bufio.Writer
	err   error
	items int
	run   reportItem // page batches not yet written
}

// reportItem is an item of a report.
type reportItem struct {
	Offset  uint64 `json:"offset"`
	Octets  uint64 `json:"octets"`
	Item    string `json:"item"`
	Detail  string `json:"detail,omitempty"`
	Batches int    `json:"batches,omitempty"`
	Pages   int    `json:"pages,omitempty"` // with contents
	Became  string `json:"became,omitempty"`
	Dropped string `json:"dropped,omitempty"`
}

// reportProblem is something wrong with an image.
type reportProblem struct {
	Offset uint64 `json:"offset"`
	Item   string `json:"item,omitempty"`
	Reason string `json:"reason"`
}

func openReport(name string) (*report, error) {
	if name == "" {
		return nil, nil
	}
	file, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	r := &report{file: file, w: bufio.NewWriter(file)}
	r.print("{\n\"items\": [")
	return r, nil
}

func (r *report) print(format string, args ...any) {
	if r.err == nil {
		_, r.err = fmt.Fprintf(r.w, format, args...)
	}
}

// member writes the object's next member.
func (r *report) member(name string, value any, end string) {
	b, err := json.Marshal(value)
	if r.err == nil {
		r.err = err
	}
	r.print("%q: %s%s\n", name, b, end)
}

func (r *report) event(e legacy.Event) {
	if r == nil {
		return
	}
	item := reportItem{Offset: e.Offset, Octets: e.Octets, Item: e.Item.Name(), Detail: e.Item.String(), Became: e.Became, Dropped: e.Dropped}
	if b, ok := e.Item.(*legacy.Batch); ok {
		item.Detail, item.Batches, item.Pages = "", 1, b.Pages
		if r.run.Batches > 0 && item.Dropped == "" && r.run.Dropped == "" {
			r.run.Octets += item.Octets
			r.run.Batches++
			r.run.Pages += item.Pages
			return
		}
		r.flush()
		r.run = item
		return
	}
	r.flush()
	r.write(item)
}

// flush writes the page batches that are not written yet.
func (r *report) flush() {
	if r.run.Batches > 0 {
		r.write(r.run)
	}
	r.run = reportItem{}
}

func (r *report) write(item reportItem) {
	b, err := json.Marshal(item)
	if r.err == nil {
		r.err = err
	}
	if r.items++; r.items > 1 {
		r.print(",")
	}
	r.print("\n%s", b)
}

// close writes how it all ended.
func (r *report) close(l legacy.Layout, result legacy.Result, outcome error) error {
	if r == nil {
		return nil
	}
	r.flush()
	r.print("\n],\n")
	r.member("image", struct {
		Width       string `json:"width"`
		Guest       string `json:"guest_type"`
		Octets      uint64 `json:"octets"`
		Checkpoints int    `json:"checkpoints"`
	}{l.Width.String(), l.Guest(), result.Input, result.Checkpoints}, ",")
	r.member("output", struct {
		Octets uint64 `json:"octets"`
	}{result.Output}, ",")
	r.member("complete", outcome == nil, ",")
	r.member("problems", problems(outcome), ",")
	r.member("missing", result.Missing, "")
	r.print("}\n")
	err := errors.Join(r.err, r.w.Flush(), r.file.Close())
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// problems is what err tells, one for each error that was joined to it.
func problems(err error) []reportProblem {
	if err == nil {
		return []reportProblem{}
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		all := []reportProblem{}
		for _, e := range many.Unwrap() {
			all = append(all, problems(e)...)
		}
		return all
	}
	p := reportProblem{Reason: err.Error()}
	var at *record.Error
	if errors.As(err, &at) {
		p = reportProblem{at.Offset, at.Record, at.Err.Error()}
	}
	return []reportProblem{p}
}
