package statesync

import "time"

const (
	// meterEvery is the length of a sample, meterOver the time over which a rate
	// is taken.
	meterEvery = 250 * time.Millisecond
	meterOver  = 16
)

// meter tells rates from samples of the last seconds.
type meter struct {
	samples []sample // at most meterOver, oldest first
}

type sample struct {
	at            time.Time
	fetched, done uint64
}

// restart forgets what was done for an earlier target.
func (m *meter) restart() { m.samples = m.samples[:0] }

// at notes how far a sync is and returns how many bytes arrive in a second and
// how long the rest takes.
func (m *meter) at(now time.Time, p *Progress) (rate float64, left time.Duration) {
	if n := len(m.samples); n == 0 || now.Sub(m.samples[n-1].at) >= meterEvery {
		if n == meterOver {
			m.samples = append(m.samples[:0], m.samples[1:]...)
		}
		m.samples = append(m.samples, sample{now, p.FetchedBytes, p.DoneBytes})
	}
	first := m.samples[0]
	took := now.Sub(first.at).Seconds()
	if took <= 0 {
		return 0, 0
	}
	rate = float64(p.FetchedBytes-first.fetched) / took
	if done := float64(p.DoneBytes-first.done) / took; done > 0 && p.TotalBytes > p.DoneBytes {
		left = time.Duration(float64(p.TotalBytes-p.DoneBytes) / done * float64(time.Second))
	}
	return rate, left
}
