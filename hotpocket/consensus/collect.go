package consensus

// keepAttempts is how many attempts of one height are remembered per member. A
// member that names more only makes its own older messages forgotten.
const keepAttempts = 4

// collected holds one message of a kind per member and attempt. Members are
// named by their place in the UNL; at the place -1, of somebody who is none,
// there is nothing.
type collected[M any] struct {
	of     [][]said[M]    // by member, in the order of attempts
	counts map[uint32]int // members by attempt
	heard  int            // members with any message
}

type said[M any] struct {
	attempt uint32
	message M
}

func newCollected[M any](members int) collected[M] {
	return collected[M]{of: make([][]said[M], members), counts: make(map[uint32]int, 1)}
}

// at returns the message of a member in an attempt, or nil.
func (c *collected[M]) at(member int, attempt uint32) (m M) {
	if member < 0 {
		return m
	}
	for _, s := range c.of[member] {
		if s.attempt == attempt {
			return s.message
		}
	}
	return m
}

// add takes a message unless there is one of that member and attempt already,
// which it returns.
func (c *collected[M]) add(member int, attempt uint32, m M) (old M, added bool) {
	of := c.of[member]
	i := len(of)
	for i > 0 && of[i-1].attempt >= attempt {
		if i--; of[i].attempt == attempt {
			return of[i].message, false
		}
	}
	if len(of) == 0 {
		c.heard++
	}
	of = append(of, said[M]{})
	copy(of[i+1:], of[i:])
	of[i] = said[M]{attempt, m}
	c.counts[attempt]++
	if len(of) > keepAttempts {
		c.forget(of[0].attempt)
		of = append(of[:0], of[1:]...)
	}
	c.of[member] = of
	return m, true
}

// remove drops a member's message of an attempt.
func (c *collected[M]) remove(member int, attempt uint32) {
	of := c.of[member]
	for i := range of {
		if of[i].attempt == attempt {
			c.of[member] = append(of[:i], of[i+1:]...)
			c.forget(attempt)
			return
		}
	}
}

func (c *collected[M]) forget(attempt uint32) {
	if c.counts[attempt]--; c.counts[attempt] == 0 {
		delete(c.counts, attempt)
	}
}

// count returns how many members have a message of an attempt.
func (c *collected[M]) count(attempt uint32) int { return c.counts[attempt] }

// highest returns the greatest attempt of a member.
func (c *collected[M]) highest(member int) (attempt uint32, ok bool) {
	of := c.of[member]
	if len(of) == 0 {
		return 0, false
	}
	return of[len(of)-1].attempt, true
}
