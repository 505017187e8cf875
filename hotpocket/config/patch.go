package config

import (
	"fmt"
	"math"
	"slices"
	"time"

	"evernode/hotpocket/key"
)

// Patch is the part of the configuration that the members agree on: patch.cfg.
// The contract changes it by writing ../patch.cfg (section 2.11).
type Patch struct {
	Version     string       // the contract's version, told to users
	UNL         []key.Public // 1 to MaxUNL members in file order, none twice
	BinPath     string       // executable, absolute or relative to the state folder
	BinArgs     string       // separated by single spaces
	Environment Environment
	// MaxInputLedgerOffset is how many ledgers ahead an input may expire; 0: any.
	MaxInputLedgerOffset int
	Consensus            Consensus
	NPL                  NPL
	RoundLimits          RoundLimits

	extra *value // the file or section as it was read, for unknown fields
}

// Consensus is how the members come to agree.
type Consensus struct {
	Mode      string        // "public": every node may follow; "private": members only
	Roundtime time.Duration // longest time between ledgers, 1 ms to 1 h
	// StageSlice is read and kept for files of the original; our rounds have
	// no slots.
	StageSlice int
	// Threshold is the share of members needed, in percent, 1 to 100. A value
	// below 50 has the effect of 50: more than half are needed always.
	Threshold int
	// LedgersPerRoundtime is how many ledgers may close in a roundtime when
	// there is work. It is ours; files of the original get the default.
	LedgersPerRoundtime int
}

// Public reports whether nodes outside the UNL may follow.
func (c Consensus) Public() bool { return c.Mode == "public" }

// NPL is who receives the contract's messages to other nodes.
type NPL struct {
	Mode string // "public" or "private"
}

// Public reports whether nodes outside the UNL receive NPL messages.
func (n NPL) Public() bool { return n.Mode == "public" }

// RoundLimits bounds one run of the contract. 0 means no limit.
type RoundLimits struct {
	UserInputBytes  uint64 // per user and ledger
	UserOutputBytes uint64 // per user and run
	NPLOutputBytes  uint64 // per run
	ProcCPUSeconds  uint64
	ProcMemBytes    uint64
	ProcOFDCount    uint64
	ExecTimeout     time.Duration
}

func defaultPatch() Patch {
	return Patch{
		Version:              "1.0",
		BinPath:              BinPathPlaceholder,
		MaxInputLedgerOffset: 10,
		Consensus: Consensus{
			Mode:                "private",
			Roundtime:           time.Second,
			StageSlice:          25,
			Threshold:           DefaultThreshold,
			LedgersPerRoundtime: DefaultLedgersPerRoundtime,
		},
		NPL:         NPL{Mode: "private"},
		RoundLimits: RoundLimits{ExecTimeout: 5 * time.Minute},
	}
}

// bind visits every field in the order of section 2.11.
func (p *Patch) bind(b binder) {
	b.field("version", nonEmpty(&p.Version))
	b.field("unl", required(members(&p.UNL)))
	b.field("bin_path", anyText(&p.BinPath))
	b.field("bin_args", anyText(&p.BinArgs))
	b.field("environment", environment(&p.Environment))
	b.field("max_input_ledger_offset", whole(&p.MaxInputLedgerOffset, 0, math.MaxUint16))
	b.section("consensus", func(b binder) {
		b.field("mode", oneOf(&p.Consensus.Mode, "public", "private"))
		b.field("roundtime", millis(&p.Consensus.Roundtime, 1, 3600000))
		b.field("stage_slice", whole(&p.Consensus.StageSlice, 1, 33))
		b.field("threshold", whole(&p.Consensus.Threshold, 1, 100))
		b.field("ledgers_per_roundtime", ours(whole(&p.Consensus.LedgersPerRoundtime, 1, 1000)))
	})
	b.section("npl", func(b binder) { b.field("mode", oneOf(&p.NPL.Mode, "public", "private")) })
	b.section("round_limits", func(b binder) {
		l := &p.RoundLimits
		b.field("user_input_bytes", count(&l.UserInputBytes))
		b.field("user_output_bytes", count(&l.UserOutputBytes))
		b.field("npl_output_bytes", count(&l.NPLOutputBytes))
		b.field("proc_cpu_seconds", count(&l.ProcCPUSeconds))
		b.field("proc_mem_bytes", count(&l.ProcMemBytes))
		b.field("proc_ofd_count", count(&l.ProcOFDCount))
		b.field("exec_timeout", millis(&l.ExecTimeout, 0, maxMillis))
	})
}

// notPatch are the fields of hp.cfg's contract section that stay out of
// patch.cfg. Fields that we do not know belong to it, as every field that
// later versions of the original added there did.
var notPatch = []string{"id", "execute", "run_as", "log"}

// ParsePatch reads and checks the text of a patch.cfg. All fields must be
// there, as the original demands, so that what a file means depends on nothing
// but its bytes; only ledgers_per_roundtime, which is ours, may be missing and
// then has its default. The error is fit to be shown to the contract's author:
// a *SyntaxError, or one *FieldError per bad field, joined.
func ParsePatch(text []byte) (Patch, error) {
	v, err := parseObject(text)
	if err != nil {
		return Patch{}, err
	}
	p := defaultPatch()
	var errs []error
	p.bind(&decoder{object: &v, text: text, strict: true, errs: &errs})
	if len(errs) == 0 && p.BinPath == "" {
		errs = append(errs, &FieldError{Field: "bin_path", Value: `""`, Allowed: "the path of the contract's executable"})
	}
	if len(errs) > 0 {
		return Patch{}, join(errs)
	}
	p.extra = &v
	return p, nil
}

// Text returns patch.cfg as it is written: canonical, so that nodes with equal
// settings write equal bytes.
func (p Patch) Text() []byte {
	e := encoder{value{kind: kindObject}, p.extra.without(notPatch)}
	p.bind(&e)
	return format(e.finish())
}

// without returns a copy of v that lacks some members. v may be nil.
func (v *value) without(names []string) *value {
	if v == nil {
		return nil
	}
	less := *v
	less.members = nil
	for _, m := range v.members {
		if !slices.Contains(names, m.name) {
			less.members = append(less.members, m)
		}
	}
	return &less
}

// Equal reports whether both have the same effect: the order of the UNL and of
// the environment and fields that we do not know do not count.
func (p Patch) Equal(o Patch) bool {
	return p.Version == o.Version && p.BinPath == o.BinPath && p.BinArgs == o.BinArgs &&
		p.MaxInputLedgerOffset == o.MaxInputLedgerOffset && p.Consensus == o.Consensus &&
		p.NPL == o.NPL && p.RoundLimits == o.RoundLimits &&
		p.Environment.Equal(o.Environment) && slices.Equal(p.Members(), o.Members())
}

// Differences names the fields in which p and o differ, as in hp.cfg and in its
// order, e.g. "contract.consensus.roundtime". There are none when they are Equal.
func (p Patch) Differences(o Patch) []string {
	ours, theirs := p.fields(), o.fields()
	var names []string
	for i, f := range ours {
		if f.text != theirs[i].text {
			names = append(names, f.name)
		}
	}
	return names
}

// fields lists the fields with their values in a form that is the same exactly
// when the effect is.
func (p Patch) fields() []namedField {
	p.UNL = p.Members()
	p.Environment = p.Environment.sorted()
	l := lister{path: "contract", found: new([]namedField)}
	p.bind(l)
	return *l.found
}

// Members returns the UNL in ascending order of keys.
func (p Patch) Members() []key.Public {
	m := slices.Clone(p.UNL)
	slices.SortFunc(m, key.Public.Compare)
	return m
}

// Member reports whether k is in the UNL.
func (p Patch) Member(k key.Public) bool { return slices.Contains(p.UNL, k) }

// Apply returns c with the agreed part replaced by p; everything that is the
// operator's stays. c is left as it was. Fields of c that neither side knows
// are kept unless p has its own.
func (c *Config) Apply(p Patch) *Config {
	next := *c
	extra := p.extra.without(notPatch)
	if old := c.Contract.Patch.extra; old != nil && extra != nil {
		merged := merge(*old, *extra)
		extra = &merged
	} else if extra == nil {
		extra = old
	}
	p.extra = extra
	next.Contract.Patch = p
	return &next
}

// PatchText returns what patch.cfg must hold for c to be in force, given what
// the file holds now (nil when there is none). A file that means the same
// keeps its bytes: they are hashed, and a restart must not make a node differ
// from its cluster over layout or over fields that we do not know.
func (c *Config) PatchText(existing []byte) []byte {
	if p, err := ParsePatch(existing); err == nil && p.Equal(c.Contract.Patch) {
		return existing
	}
	return c.Contract.Patch.Text()
}

// Quorum is how many of n members must agree at a threshold in percent: the
// threshold's share rounded up, and always more than half.
func Quorum(n, threshold int) int {
	return max((threshold*n+99)/100, n/2+1)
}

// FaultTolerance is how many of n members may be silent, and how many may lie,
// while the cluster stays live and safe at a threshold in percent.
func FaultTolerance(n, threshold int) (silent, lying int) {
	q := Quorum(n, threshold)
	return n - q, max(0, min(n-q, 2*q-n-1))
}

// Warning says in one sentence what is dangerous about a threshold for n
// members, or returns "".
func Warning(n, threshold int) string {
	silent, lying := FaultTolerance(n, threshold)
	switch {
	case n == 1:
		return "the UNL has one member: no fault is survived; this is for trying things out"
	case silent == 0:
		return fmt.Sprintf("with %d members and a threshold of %d %% all %d must agree: when one stops, the cluster stops%s",
			n, threshold, n, remedy(n))
	case lying == 0:
		return fmt.Sprintf("with %d members and a threshold of %d %% the cluster survives %d that stop but none that lies%s",
			n, threshold, silent, remedy(n))
	}
	return ""
}

// remedy suggests the threshold or size at which one member may lie.
func remedy(n int) string {
	if n < 4 {
		return "; four members with a threshold of 66 survive one fault of any kind"
	}
	return "; a threshold of 66 survives one fault of any kind"
}
