package dropin

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/rs/zerolog"

	"xenferry/lib/helper"
)

// logTo is a log whose lines libxl shows.
func logTo(c *helper.Conn) zerolog.Logger { return zerolog.New(lines{c}).Level(zerolog.DebugLevel) }

// lines takes zerolog's events apart for libxl, which wants a level and a text.
type lines struct{ c *helper.Conn }

func (l lines) Write(p []byte) (int, error) { return l.WriteLevel(zerolog.NoLevel, p) }

func (l lines) WriteLevel(level zerolog.Level, p []byte) (int, error) {
	var fields map[string]any
	if err := json.Unmarshal(p, &fields); err != nil {
		return 0, err
	}
	text := fmt.Sprint(fields[zerolog.MessageFieldName])
	delete(fields, zerolog.MessageFieldName)
	delete(fields, zerolog.LevelFieldName)
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		text += fmt.Sprintf(" %s=%v", name, fields[name])
	}
	levels := map[zerolog.Level]helper.Level{
		zerolog.DebugLevel: helper.LevelDebug, zerolog.WarnLevel: helper.LevelWarn, zerolog.ErrorLevel: helper.LevelError,
	}
	to, ok := levels[level]
	if !ok {
		to = helper.LevelInfo
	}
	l.c.Log(to, text)
	return len(p), nil
}
