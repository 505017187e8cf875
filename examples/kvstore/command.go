package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// command is what a user asks for. As JSON it has these fields; as text it is
// "set k v", "get k", "del k" or "keys [prefix]", a value being the rest of the
// line.
type command struct {
	// ID comes back with the answer, whatever it is.
	ID    json.RawMessage `json:"id,omitempty"`
	Op    string          `json:"op"`
	Key   string          `json:"key"`
	Value *string         `json:"value"`
}

// answer is the reply to a command in JSON.
type answer struct {
	ID    json.RawMessage `json:"id,omitempty"`
	OK    bool            `json:"ok"`
	Value *string         `json:"value,omitempty"`
	Keys  *[]string       `json:"keys,omitempty"`
	Error string          `json:"error,omitempty"`
}

var errNotFound = errors.New("not found")

// handle executes one input and gives its reply, in the form of the input.
func handle(s *store, input []byte) []byte {
	if isJSON(input) {
		var c command
		a := answer{}
		if err := json.Unmarshal(input, &c); err != nil {
			a.Error = "bad JSON: " + err.Error()
		} else {
			a = execute(s, c)
			a.ID = c.ID
		}
		b, err := json.Marshal(a)
		if err != nil { // strings always marshal
			return []byte(`{"ok":false,"error":"internal error"}`)
		}
		return b
	}
	c, err := parseLine(string(input))
	if err != nil {
		return []byte("error: " + err.Error())
	}
	switch a := execute(s, c); {
	case a.Error != "":
		return []byte("error: " + a.Error)
	case a.Value != nil:
		return []byte(*a.Value)
	case a.Keys != nil:
		return []byte(strings.Join(*a.Keys, "\n"))
	}
	return []byte("ok")
}

func isJSON(input []byte) bool {
	input = bytes.TrimLeft(input, " \t\r\n")
	return len(input) > 0 && input[0] == '{'
}

func parseLine(line string) (command, error) {
	op, rest, _ := strings.Cut(strings.TrimRight(strings.TrimLeft(line, " "), "\r\n"), " ")
	c := command{Op: op, Key: rest}
	if op == "set" {
		key, value, ok := strings.Cut(rest, " ")
		if !ok {
			return c, errors.New("usage: set <key> <value>")
		}
		c.Key, c.Value = key, &value
	}
	return c, nil
}

func execute(s *store, c command) answer {
	fail := func(err error) answer { return answer{Error: err.Error()} }
	switch c.Op {
	case "set":
		if c.Value == nil {
			return fail(errors.New("set needs a value"))
		}
		if err := s.set(c.Key, *c.Value); err != nil {
			return fail(err)
		}
	case "get":
		v, err := s.get(c.Key)
		if err != nil {
			return fail(err)
		}
		return answer{OK: true, Value: &v}
	case "del":
		if err := s.del(c.Key); err != nil {
			return fail(err)
		}
	case "keys":
		list, err := s.keys(c.Key)
		if err != nil {
			return fail(err)
		}
		return answer{OK: true, Keys: &list}
	default:
		return fail(fmt.Errorf("unknown command %.40q, there are set, get, del and keys", c.Op))
	}
	return answer{OK: true}
}
