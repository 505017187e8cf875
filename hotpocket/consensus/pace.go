package consensus

import "time"

// pace decides how soon things are due: early ledgers, heartbeats, the grace
// given to late proposals, the length of attempts.
type pace struct {
	round  time.Duration
	per    int
	tokens float64       // how many early ledgers may close now
	asOf   time.Duration // when tokens was right
	spread time.Duration // how long after the q-th proposal the last expected one comes, smoothed
}

// open takes over the parameters of a new height and pays for its ledger.
func (p *pace) open(params Params, now time.Duration) {
	if p.round == 0 {
		p.tokens = p.burst(params.PerRound)
		p.asOf = now
	}
	p.round, p.per = params.RoundTime, params.PerRound
	p.refill(now)
	p.tokens = max(p.tokens-1, 0)
}

func (p *pace) burst(per int) float64 { return max(float64(per)/2, 1) }

func (p *pace) refill(now time.Duration) {
	p.tokens = min(p.burst(p.per), p.tokens+float64(p.per)*float64(now-p.asOf)/float64(p.round))
	p.asOf = now
}

// early returns the first moment at which a ledger may be begun before its
// heartbeat.
func (p *pace) early() time.Duration {
	if p.tokens >= 1 {
		return p.asOf
	}
	missing := (1 - p.tokens) * float64(p.round) / float64(p.per)
	// One nanosecond more, so that rounding never asks for a tick too soon.
	return p.asOf + time.Duration(missing) + 1
}

// heartbeat is when a ledger is begun whatever happens.
func (p *pace) heartbeat(opened time.Duration) time.Duration { return opened + p.round }

// grace is how long q proposals wait for the others that are expected.
func (p *pace) grace() time.Duration {
	return min(max(4*p.spread+5*time.Millisecond, 15*time.Millisecond), p.maxGrace())
}

// maxGrace bounds the grace: a member that is always late holds the others up no
// longer than the tempo under load would.
func (p *pace) maxGrace() time.Duration {
	return min(max(p.round/time.Duration(p.per), 50*time.Millisecond), p.longGrace())
}

// longGrace is how long a ledger waits for late members that nobody waits for.
func (p *pace) longGrace() time.Duration { return p.attempt(0) / 2 }

// arrived learns from how long the last expected proposal took.
func (p *pace) arrived(spread time.Duration) { p.spread += (spread - p.spread) / 8 }

// attempt is how long an attempt may take from when a quorum takes part in it,
// after so many that came to nothing. It doubles, so that it outgrows any real
// delay.
func (p *pace) attempt(tries uint32) time.Duration {
	base := min(max(p.round/2, 100*time.Millisecond), 2*time.Second)
	return min(base<<min(tries, 10), time.Minute)
}

// retry is how long a silent height waits before it repeats itself.
func (p *pace) retry() time.Duration {
	return min(max(p.round/2, 200*time.Millisecond), 2*time.Second)
}

// again is how long an answer is waited for before somebody else is asked.
func (p *pace) again() time.Duration { return p.retry() / 2 }
