package save

import (
	"context"
	"io"

	"xenferry/lib/guest"
	"xenferry/lib/xcstream"
)

// depth is how many batches are under way: one being written, the others loaded meanwhile.
const depth = 3

// pipeline overlaps loading with writing. A goroutine of its own writes what it is given, in order; the first error
// of the writer ends everything.
type pipeline struct {
	g     Guest
	jobs  [depth]*job
	work  chan *job
	ended chan struct{} // closed when the writer has stopped
	err   error         // the writer's, once ended is closed
	pfns  []guest.PFN
	still bool // the guest stays suspended as long as this process lasts
}

// job is what the writer does next: either a batch or a function.
type job struct {
	batch    Batch
	still    bool     // as the pipeline's
	progress Progress // what writing it adds to the round's
	write    func(*xcstream.Writer) error
	done     chan *job // where it goes when written
}

func newPipeline(ctx context.Context, g Guest, dst io.Writer) *pipeline {
	p := &pipeline{
		g: g, work: make(chan *job, depth), ended: make(chan struct{}),
		pfns: make([]guest.PFN, 0, xcstream.MaxBatch),
	}
	for i := range p.jobs {
		p.jobs[i] = &job{}
	}
	go p.run(ctx, xcstream.NewWriter(dst))
	return p
}

// close lets the writer end. It does not wait for a write that hangs.
func (p *pipeline) close() { close(p.work) }

func (p *pipeline) run(ctx context.Context, w *xcstream.Writer) {
	defer close(p.ended)
	for j := range p.work {
		if ctx.Err() != nil {
			p.err = context.Cause(ctx)
			return
		}
		if j.write != nil {
			p.err = j.write(w)
		} else {
			p.err = j.writeBatch(w)
		}
		if p.err != nil {
			return
		}
		j.done <- j
	}
}

func (j *job) writeBatch(w *xcstream.Writer) error {
	if err := w.PageData(j.batch.Entries, j.batch.Pages); err != nil {
		return err
	}
	if j.still {
		return j.batch.Leave()
	}
	return j.batch.Close()
}

// give hands j to the writer.
func (p *pipeline) give(ctx context.Context, j *job) error {
	select {
	case p.work <- j:
		return nil
	case <-p.ended:
		return p.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// take waits for a job to come back on c.
func (p *pipeline) take(ctx context.Context, c <-chan *job) (*job, error) {
	select {
	case j := <-c:
		return j, nil
	default:
	}
	select {
	case j := <-c:
		return j, nil
	case <-p.ended:
		return nil, p.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// do has the writer run f, and waits for it.
func (p *pipeline) do(ctx context.Context, f func(*xcstream.Writer) error) error {
	j := &job{write: f, done: make(chan *job, 1)}
	if err := p.give(ctx, j); err != nil {
		return err
	}
	_, err := p.take(ctx, j.done)
	return err
}

func (p *pipeline) headers(ctx context.Context, image xcstream.ImageHeader, domain xcstream.DomainHeader) error {
	return p.do(ctx, func(w *xcstream.Writer) error { return w.Headers(image, domain) })
}

func (p *pipeline) records(ctx context.Context, records []xcstream.Record) error {
	return p.do(ctx, func(w *xcstream.Writer) error {
		for _, r := range records {
			if err := w.Record(r); err != nil {
				return err
			}
		}
		return nil
	})
}

// pages sends the pages of set, and returns when all are written. What could not be read is the result. After an error
// the pipeline is of no more use.
func (p *pipeline) pages(ctx context.Context, set guest.Bitmap, sent func(Progress)) ([]guest.PFN, error) {
	var deferred []guest.PFN
	var sum Progress
	back := make(chan *job, depth)
	free := append(make([]*job, 0, depth), p.jobs[:]...)
	reclaim := func() error {
		j, err := p.take(ctx, back)
		if err != nil {
			return err
		}
		free = append(free, j)
		sum.add(j.progress)
		sent(sum)
		return nil
	}
	for next := uint64(0); ; {
		if p.pfns, next = guest.AppendFrom(p.pfns[:0], set, next); len(p.pfns) == 0 {
			break
		}
		if len(free) == 0 {
			if err := reclaim(); err != nil {
				return nil, err
			}
		}
		j := free[len(free)-1]
		free = free[:len(free)-1]
		j.still = p.still
		if err := j.load(ctx, p.g, p.pfns, back); err != nil {
			return nil, err
		}
		deferred = append(deferred, j.batch.Deferred...)
		if err := p.give(ctx, j); err != nil {
			return nil, err
		}
	}
	for len(free) < depth {
		if err := reclaim(); err != nil {
			return nil, err
		}
	}
	return deferred, nil
}

// load fills the job's batch, which shall go to done when it is written.
func (j *job) load(ctx context.Context, g Guest, pfns []guest.PFN, done chan *job) error {
	b := &j.batch
	b.Entries, b.Pages, b.Deferred = b.Entries[:0], b.Pages[:0], b.Deferred[:0]
	if err := g.Load(ctx, pfns, b); err != nil {
		return err
	}
	j.done = done
	j.progress = Progress{Frames: uint64(len(pfns)), Pages: uint64(len(b.Pages)), Deferred: uint64(len(b.Deferred))}
	return nil
}
