package verify

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"xenferry/lib/guest"
)

// members adds the JSON members of a type as docs/verify-v2.md writes them. The parts of objects that are always there are
// listed without the object itself.
func members(t reflect.Type, prefix string, optional bool) (names []string) {
	switch t.Kind() {
	case reflect.Pointer:
		return members(t.Elem(), prefix, optional)
	case reflect.Slice:
		return append([]string{prefix}, members(t.Elem(), prefix+"[]", false)...)
	case reflect.Struct:
		if t == reflect.TypeFor[guest.Spec]() || prefix == "a" || prefix == "b" {
			return []string{prefix}
		}
		if optional {
			names = append(names, prefix)
		}
		for i := range t.NumField() {
			f := t.Field(i)
			tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if !f.IsExported() {
				continue
			}
			names = append(names, members(f.Type, strings.TrimPrefix(prefix+"."+tag, "."), strings.Contains(options, "omitempty"))...)
		}
		return names
	}
	if strings.HasSuffix(prefix, "[]") {
		return nil
	}
	return []string{prefix}
}

// TestJSONMembers: the page that promises the member names has all of them, and no others.
func TestJSONMembers(t *testing.T) {
	page, err := os.ReadFile("../../docs/verify-v2.md")
	if err != nil {
		t.Fatal(err)
	}
	report, comparison, _ := strings.Cut(string(page), "## The comparison")
	for text, typ := range map[string]reflect.Type{report: reflect.TypeFor[Report](), comparison: reflect.TypeFor[Comparison]()} {
		var documented []string
		for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)`").FindAllStringSubmatch(text, -1) {
			documented = append(documented, row[1])
		}
		have := members(typ, "", false)
		slices.Sort(documented)
		slices.Sort(have)
		for _, name := range have {
			if !slices.Contains(documented, name) {
				t.Errorf("%s is not documented", name)
			}
		}
		for _, name := range documented {
			if !slices.Contains(have, name) {
				t.Errorf("%s is documented and does not exist", name)
			}
		}
	}
}

// TestJSONLists: a list that has nothing is an empty list.
func TestJSONLists(t *testing.T) {
	stream := newHVM().stream(t)
	for _, end := range []int{0, 40, len(stream)} {
		c, err := Compare(bytes.NewReader(stream[:end]), bytes.NewReader(stream), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if b, err := json.Marshal(c); err != nil || bytes.Contains(b, []byte("null")) {
			t.Errorf("%v: %s", err, b)
		}
	}
}
