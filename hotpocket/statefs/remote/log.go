package remote

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"slices"
)

// maxLine bounds a line of a child's log; what is beyond is cut.
const maxLine = 16 << 10

// passLog hands on what a child prints: lines of its logger with their levels and
// attributes, anything else, the end of a crash for instance, as errors.
func passLog(from io.Reader, log *slog.Logger) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	in := bufio.NewReaderSize(from, maxLine)
	for {
		line, err := in.ReadSlice('\n')
		if len(line) > 0 {
			passLine(log, bytes.TrimRight(line, "\n"))
		}
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = in.ReadSlice('\n')
		}
		if err != nil {
			return
		}
	}
}

func passLine(log *slog.Logger, line []byte) {
	var m map[string]any
	if len(line) == 0 {
		return
	}
	if json.Unmarshal(line, &m) != nil {
		log.Error("the state's process says", "text", string(line))
		return
	}
	var level slog.Level
	text, _ := m[slog.LevelKey].(string)
	if level.UnmarshalText([]byte(text)) != nil {
		level = slog.LevelInfo
	}
	msg, _ := m[slog.MessageKey].(string)
	var attrs []slog.Attr
	for k, v := range m {
		if k != slog.LevelKey && k != slog.MessageKey && k != slog.TimeKey {
			attrs = append(attrs, slog.Any(k, v))
		}
	}
	slices.SortFunc(attrs, func(a, b slog.Attr) int { return bytes.Compare([]byte(a.Key), []byte(b.Key)) })
	log.LogAttrs(context.Background(), level, msg, attrs...)
}

// ChildLog is the logger of a child: one that passLog understands.
func ChildLog(to io.Writer) *slog.Logger {
	return slog.New(slog.NewJSONHandler(to, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
