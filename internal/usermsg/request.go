package usermsg

import (
	"errors"
	"fmt"
)

// RequestType says which message of a user a Request is.
type RequestType uint8

// The messages of a user after the handshake (section 1.4).
const (
	RequestUnknown RequestType = iota // the type could not be told
	RequestInput
	RequestRead
	RequestStat
	RequestLCL
	RequestSubscription
	RequestLedgerQuery
)

var requestNames = [...]string{
	RequestInput:        "contract_input",
	RequestRead:         "contract_read_request",
	RequestStat:         "stat",
	RequestLCL:          "lcl",
	RequestSubscription: "subscription",
	RequestLedgerQuery:  "ledger_query",
}

// String returns the type as messages spell it.
func (t RequestType) String() string {
	if t == RequestUnknown || int(t) >= len(requestNames) {
		return "unknown"
	}
	return requestNames[t]
}

// Channel is a stream of events to which a user can subscribe (section 1.12).
type Channel uint8

// The channels.
const (
	ChannelUNLChange Channel = iota
	ChannelLedgerEvent
	ChannelHealthEvent
	channelCount
)

var channelNames = [channelCount]string{"unl_change", "ledger_event", "health_event"}

// String returns the channel's name in messages.
func (c Channel) String() string {
	if c < channelCount {
		return channelNames[c]
	}
	return fmt.Sprintf("channel(%d)", uint8(c))
}

// Request is one message of a user. Which fields matter depends on Type.
type Request struct {
	Type RequestType

	Container []byte // input: the bytes that were signed
	Sig       []byte // input: the signature as sent, of whatever length

	ID      string // read request and ledger query
	Content []byte // read request

	Channel Channel // subscription
	Enabled bool

	SeqNo          uint64 // ledger query
	IncludeInputs  bool
	IncludeOutputs bool
}

// AppendRequest appends r in the order of fields that the JavaScript client
// uses.
func AppendRequest(b []byte, p Protocol, r Request) []byte {
	e := encoder{b: b, bson: p == BSON}
	start := e.begin()
	e.text(field("type"), r.Type.String())
	switch r.Type {
	case RequestInput:
		e.said(field("input_container"), r.Container)
		e.bytes(field("sig"), r.Sig)
	case RequestRead:
		e.text(field("id"), r.ID)
		e.said(field("content"), r.Content)
	case RequestSubscription:
		e.text(field("channel"), r.Channel.String())
		e.boolean(field("enabled"), r.Enabled)
	case RequestLedgerQuery:
		e.text(field("id"), r.ID)
		e.text(field("filter_by"), "seq_no")
		params := e.object(field("params"))
		e.long(field("seq_no"), r.SeqNo)
		e.end(params, '}')
		include := e.array(field("include"))
		n := 0
		if r.IncludeInputs {
			e.text(element(n), "inputs")
			n++
		}
		if r.IncludeOutputs {
			e.text(element(n), "outputs")
		}
		e.end(include, ']')
	}
	e.end(start, '}')
	return e.b
}

// requestFields are the values of a message before its type says which of them
// count.
type requestFields struct {
	typ, container, sig, id, content, channel, enabled, filterBy, params, include value
}

func (f *requestFields) slot(k []byte) *value {
	switch string(k) {
	case "type":
		return &f.typ
	case "input_container":
		return &f.container
	case "sig":
		return &f.sig
	case "id":
		return &f.id
	case "content":
		return &f.content
	case "channel":
		return &f.channel
	case "enabled":
		return &f.enabled
	case "filter_by":
		return &f.filterBy
	case "params":
		return &f.params
	case "include":
		return &f.include
	}
	return nil
}

// DecodeRequest reads one message of a user. When it fails, Type still says
// what the message was meant to be, as far as that could be told, and for an
// input Sig holds whatever the signature decoded to: the replies of section
// 1.6 depend on both. The error is ErrUnknownType for a well-formed message of
// no known type. Nothing in the result aliases data.
func DecodeRequest(p Protocol, data []byte) (Request, error) {
	var r Request
	var f requestFields
	doc, err := document(p, data)
	if err != nil {
		return r, err
	}
	m := doc.members(kindObject)
	for {
		k, v, ok := m.next()
		if !ok {
			break
		}
		if slot := f.slot(k); slot != nil {
			if slot.kind != kindNone {
				return r, fmt.Errorf("field %s occurs twice", k)
			}
			*slot = v
		}
	}
	if m.err != nil {
		return r, m.err
	}
	if f.typ.kind != kindString {
		return r, fmt.Errorf("type: %w", f.typ.wrong("a string"))
	}
	r.Type = requestType(f.typ)
	if r.Type == RequestUnknown {
		return r, ErrUnknownType
	}
	if err := r.take(&f); err != nil {
		return r, fmt.Errorf("%s: %w", r.Type, err)
	}
	return r, nil
}

func requestType(v value) RequestType {
	for t := RequestInput; int(t) < len(requestNames); t++ {
		if v.is(requestNames[t]) {
			return t
		}
	}
	return RequestUnknown
}

func (r *Request) take(f *requestFields) (err error) {
	switch r.Type {
	case RequestInput:
		return r.takeInput(f)
	case RequestRead:
		if r.ID, err = f.id.text(); err != nil {
			return fmt.Errorf("id: %w", err)
		}
		if r.Content, err = f.content.appendContent(make([]byte, 0, f.content.size())); err != nil {
			return fmt.Errorf("content: %w", err)
		}
	case RequestSubscription:
		if f.channel.kind != kindString {
			return fmt.Errorf("channel: %w", f.channel.wrong("a string"))
		}
		r.Channel = channelCount
		for c := range channelCount {
			if f.channel.is(channelNames[c]) {
				r.Channel = c
			}
		}
		if r.Channel == channelCount {
			return errors.New("channel is not known")
		}
		if r.Enabled, err = f.enabled.boolean(); err != nil {
			return fmt.Errorf("enabled: %w", err)
		}
	case RequestLedgerQuery:
		return r.takeQuery(f)
	}
	return nil
}

func (r *Request) takeInput(f *requestFields) error {
	// One piece of memory for both; its size bounds either form.
	buf := make([]byte, 0, f.container.size()+f.sig.size())
	sig, sigErr := f.sig.appendBytes(buf)
	if sigErr == nil {
		r.Sig = sig[:len(sig):len(sig)]
		buf = sig
	}
	all, err := f.container.appendContent(buf)
	if err != nil {
		return fmt.Errorf("input_container: %w", err)
	}
	r.Container = all[len(buf):]
	switch {
	case sigErr != nil:
		return fmt.Errorf("sig: %w", sigErr)
	case len(r.Container) == 0:
		return errors.New("input_container is empty")
	case len(r.Sig) == 0:
		return errors.New("sig is empty")
	}
	return nil
}

func (r *Request) takeQuery(f *requestFields) (err error) {
	if r.ID, err = f.id.text(); err != nil {
		return fmt.Errorf("id: %w", err)
	}
	if r.ID == "" {
		return errors.New("id is empty")
	}
	if !f.filterBy.is("seq_no") {
		return errors.New("filter_by is not seq_no")
	}
	found := false
	err = f.params.object(func(k []byte, v value) (err error) {
		if string(k) == "seq_no" {
			r.SeqNo, err = v.uint()
			found = true
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("params: %w", err)
	}
	if !found {
		return errors.New("params: no seq_no")
	}
	err = f.include.array(func(v value) error {
		r.IncludeInputs = r.IncludeInputs || v.is("inputs")
		r.IncludeOutputs = r.IncludeOutputs || v.is("outputs")
		return nil
	})
	if err != nil {
		return fmt.Errorf("include: %w", err)
	}
	return nil
}

// Container is what a user signs to submit an input (section 1.4). Reading it
// is the business of those who have to agree on what it says.
type Container struct {
	Input       []byte // in JSON it travels as text and must be UTF-8
	Nonce       uint64 // at least 1
	MaxLedgerNo uint64 // the last ledger in which the input may be
}

// AppendContainer appends the bytes that are signed and sent.
func AppendContainer(b []byte, p Protocol, c Container) []byte {
	e := encoder{b: b, bson: p == BSON}
	start := e.begin()
	e.said(field("input"), c.Input)
	e.long(field("nonce"), c.Nonce)
	e.long(field("max_ledger_seq_no"), c.MaxLedgerNo)
	e.end(start, '}')
	return e.b
}
