package migrate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A configuration is edited as text: libxl writes members that nothing here knows, and what is not changed stays octet for octet.

// errNoMember says that a JSON object has no member of a name.
var errNoMember = errors.New("it is not there")

// field is a member of a JSON object: where in the text its key begins, and its value begins and ends.
type field struct {
	name            string
	key, begin, end int
}

// fields are the members of the JSON object b, in their order.
func fields(b []byte) (all []field, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	switch t, err := d.Token(); {
	case err != nil:
		return nil, err
	case t != json.Delim('{'):
		return nil, fmt.Errorf("%v is no object", t)
	}
	for d.More() {
		f := field{key: int(d.InputOffset())}
		f.key += len(b[f.key:]) - len(bytes.TrimLeft(b[f.key:], ", \t\r\n"))
		name, err := d.Token()
		var value json.RawMessage
		if err == nil {
			err = d.Decode(&value)
		}
		if err != nil {
			return nil, err
		}
		f.name, f.end = fmt.Sprint(name), int(d.InputOffset())
		f.begin = f.end - len(value)
		all = append(all, f)
	}
	return all, nil
}

// place is where in b the value is that a path of members leads to; no path leads to b. errNoMember: it leads nowhere.
func place(b []byte, path ...string) (begin, end int, err error) {
	end = len(b)
	for _, name := range path {
		all, err := fields(b[begin:end])
		i := slices.IndexFunc(all, func(f field) bool { return f.name == name })
		if err == nil && i < 0 {
			err = errNoMember
		}
		if err != nil {
			return 0, 0, fmt.Errorf("configuration: %s: %w", strings.Join(path, "."), err)
		}
		begin, end = begin+all[i].begin, begin+all[i].end
	}
	return begin, end, nil
}

// setMember sets a value that a path of members leads to in JSON, where it must be.
func setMember(b []byte, value any, path ...string) ([]byte, error) {
	begin, end, err := place(b, path...)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(value)
	return slices.Concat(b[:begin], text, b[end:]), err
}

// putMember is setMember for one that need not be there yet, in an object that must.
func putMember(b []byte, value any, path ...string) ([]byte, error) {
	changed, err := setMember(b, value, path...)
	if !errors.Is(err, errNoMember) {
		return changed, err
	}
	object, name := path[:len(path)-1], path[len(path)-1]
	begin, end, err := place(b, object...)
	if err != nil {
		return nil, err
	}
	all, err := fields(b[begin:end])
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(map[string]any{name: value})
	if err != nil {
		return nil, err
	}
	text = text[1 : len(text)-1] // without its braces
	at := begin + bytes.IndexByte(b[begin:end], '{') + 1
	if len(all) > 0 {
		at, text = begin+all[len(all)-1].end, append([]byte(", "), text...)
	}
	return slices.Concat(b[:at], text, b[at:]), nil
}

// dropMember removes a member, if it is there, from an object that must be.
func dropMember(b []byte, path ...string) ([]byte, error) {
	begin, end, err := place(b, path[:len(path)-1]...)
	if err != nil {
		return nil, err
	}
	all, err := fields(b[begin:end])
	i := slices.IndexFunc(all, func(f field) bool { return f.name == path[len(path)-1] })
	if err != nil || i < 0 {
		return b, err
	}
	from, to := all[i].key, all[i].end
	switch {
	case i > 0: // and the comma in front
		from = all[i-1].end
	case len(all) > 1:
		to = all[1].key
	}
	return slices.Concat(b[:begin+from], b[begin+to:]), nil
}
