package consensus

import "evernode/hotpocket/key"

// keepAttempts is how many attempts of one height are remembered per member. A
// member that names more only makes its own older messages forgotten.
const keepAttempts = 4

// collected holds one message of a kind per member and attempt.
type collected[M any] map[key.Public]map[uint32]M

// add takes a message unless there is one of that member and attempt already,
// which it returns.
func (c collected[M]) add(k key.Public, attempt uint32, m M) (old M, added bool) {
	of := c[k]
	if of == nil {
		of = make(map[uint32]M, 1)
		c[k] = of
	}
	if old, ok := of[attempt]; ok {
		return old, false
	}
	of[attempt] = m
	if len(of) > keepAttempts {
		lowest := attempt
		for a := range of {
			lowest = min(lowest, a)
		}
		delete(of, lowest)
	}
	return m, true
}

// highest returns the greatest attempt of a member.
func (c collected[M]) highest(k key.Public) (attempt uint32, ok bool) {
	for a := range c[k] {
		attempt, ok = max(attempt, a), true
	}
	return attempt, ok
}
