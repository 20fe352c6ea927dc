// The programs of bench/contenders in Go, and the loop of bench/harness.py:
// `bench OPERATION KIND N SECONDS` prints a line of JSON.  net.go has the servers and their load.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

var operations = map[string]func(n int){
	"spawn_1000":       func(n int) { spawn(n, 1000) },
	"spawn_100000":     func(n int) { spawn(n, n) },
	"yield_2":          func(n int) { yields(n, 2) },
	"yield_1000":       func(n int) { yields(n, 1000) },
	"chan_0":           func(n int) { channel(n, 0) },
	"chan_1000":        func(n int) { channel(n, 1000) },
	"select_2":         select2,
	"select_8":         select8,
	"mutex":            mutex,
	"mutex_10":         func(n int) { mutexContended(n, 10) },
	"cancel_scope":     scope,
	"timeout_ready":    timeoutReady,
	"cancel_parked":    cancelParked,
	"contexts":         contexts,
	"timers":           timers,
	"park":             func(n int) { park(n, 0) },
	"park_deep":        func(n int) { park(n, 5) },
	"million":          func(n int) { park(n, 0) },
	"ping_pong":        pingPong,
	"chan_0_across":    func(n int) { channel(n, 0) },
	"chan_1000_across": func(n int) { channel(n, 1000) },
	"fan_out":          func(n int) { fanOut(n, 4) },
	"fork_join_1":      forkJoin,
	"fork_join_2":      forkJoin,
}

const sleepTime = 500 * time.Millisecond

// Written by functions whose work must not be optimised away.
var sink int

//go:noinline
func done(wg *sync.WaitGroup) { wg.Done() }

func spawn(n, batch int) {
	for range n / batch {
		var wg sync.WaitGroup
		for range batch {
			wg.Add(1)
			go done(&wg)
		}
		wg.Wait()
	}
}

func yields(n, goroutines int) {
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for range n / goroutines {
				runtime.Gosched()
			}
		})
	}
	wg.Wait()
}

func produce(ch chan<- int, n int) {
	for i := range n {
		ch <- i
	}
	close(ch)
}

func channel(n, size int) {
	ch := make(chan int, size)
	go produce(ch, n)
	for i := range ch {
		sink = i
	}
}

// senders starts goroutines that send until they are stopped; stop waits for their end.
func senders(channels int) (chans []chan int, stop func()) {
	var stopped atomic.Bool
	chans = make([]chan int, channels)
	for i := range chans {
		ch := make(chan int)
		chans[i] = ch
		go func() {
			for !stopped.Load() {
				ch <- 1
			}
			close(ch)
		}()
	}
	return chans, func() {
		stopped.Store(true)
		for _, ch := range chans {
			for i := range ch {
				sink = i
			}
		}
	}
}

func select2(n int) {
	chans, stop := senders(2)
	a, b := chans[0], chans[1]
	for range n {
		select {
		case sink = <-a:
		case sink = <-b:
		}
	}
	stop()
}

func select8(n int) {
	chans, stop := senders(8)
	a, b, c, d, e, f, g, h := chans[0], chans[1], chans[2], chans[3], chans[4], chans[5], chans[6], chans[7]
	for range n {
		select {
		case sink = <-a:
		case sink = <-b:
		case sink = <-c:
		case sink = <-d:
		case sink = <-e:
		case sink = <-f:
		case sink = <-g:
		case sink = <-h:
		}
	}
	stop()
}

func mutex(n int) {
	var mu sync.Mutex
	for i := range n {
		mu.Lock()
		sink = i
		mu.Unlock()
	}
}

func mutexContended(n, goroutines int) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for range n / goroutines {
				mu.Lock()
				runtime.Gosched()
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

// What is not to be counted of the last operation.
var idle time.Duration

func scope(n int) {
	for range n {
		_, cancel := context.WithCancel(context.Background())
		cancel()
	}
}

func timeoutReady(n int) {
	ch := make(chan int, 1)
	for i := range n {
		ch <- i
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		select {
		case sink = <-ch:
		case <-ctx.Done():
		}
		cancel()
	}
}

func cancelParked(n int) {
	start := time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	var ready, ends sync.WaitGroup
	ready.Add(n)
	for range n {
		ends.Go(func() {
			ready.Done()
			<-ctx.Done()
		})
	}
	ready.Wait()
	idle = time.Since(start)
	cancel()
	ends.Wait()
}

// contexts makes a tree of them, 10 below each, and cancels it.
func contexts(n int) {
	root, cancelAll := context.WithCancel(context.Background())
	level := []context.Context{root}
	for left := n; left > 0; left -= len(level) {
		var next []context.Context
		for _, parent := range level {
			for range min(10, left-len(next)) {
				ctx, cancel := context.WithCancel(parent)
				defer cancel()
				next = append(next, ctx)
			}
		}
		level = next
	}
	cancelAll()
	if level[len(level)-1].Err() == nil {
		panic("it was not cancelled")
	}
}

func timers(n int) {
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { time.Sleep(sleepTime) })
	}
	wg.Wait()
	idle = sleepTime
}

//go:noinline
func deep(level int, rest func()) int {
	numbers := [3]int{level, level + 1, level + 2}
	if level > 1 {
		return deep(level-1, rest) + numbers[level%3]
	}
	rest()
	return numbers[level%3]
}

// What memory said when all were parked, and how long it took to find out.
var (
	atPark  int
	looking time.Duration
)

// park has n goroutines wait, each below so many frames with locals.
func park(n, frames int) {
	var ready, ends sync.WaitGroup
	gate := make(chan struct{})
	rest := func() {
		ready.Done()
		<-gate
		ends.Done()
	}
	ready.Add(n)
	ends.Add(n)
	for range n {
		if frames == 0 {
			go rest()
		} else {
			go deep(frames, rest)
		}
	}
	ready.Wait()
	start := time.Now()
	atPark = memory()
	looking = time.Since(start)
	close(gate)
	ends.Wait()
}

func pingPong(n int) {
	ping, pong := make(chan int), make(chan int)
	go func() {
		for value := range ping {
			pong <- value
		}
	}()
	for i := range n {
		ping <- i
		sink = <-pong
	}
	close(ping)
}

func fanOut(n, consumers int) {
	ch := make(chan int, 1000)
	var wg sync.WaitGroup
	for range consumers {
		wg.Go(func() {
			for range ch {
			}
		})
	}
	produce(ch, n)
	wg.Wait()
}

//go:noinline
func work() int {
	total := 0
	for i := range 10_000 {
		total += i * i % 7
	}
	return total
}

func forkJoin(n int) {
	results := make(chan int, n)
	for range n {
		go func() { results <- work() }()
	}
	for range n {
		sink = <-results
	}
}

// --- the harness --------------------------------------------------------------------------------

// memory returns the bytes that this process has for itself.
func memory() int {
	rollup, err := os.ReadFile("/proc/self/smaps_rollup")
	check(err)
	for line := range strings.Lines(string(rollup)) {
		if fields := strings.Fields(line); fields[0] == "Pss:" {
			kilobytes, err := strconv.Atoi(fields[1])
			check(err)
			return kilobytes * 1024
		}
	}
	panic("no Pss in smaps_rollup")
}

func timed(name string, n int) float64 {
	idle = 0
	start := time.Now()
	operations[name](n)
	return float64((time.Since(start) - idle).Nanoseconds())
}

func rate(name string, n int, seconds float64) (int, float64) {
	step, budget := n, seconds*1e9
	ns := timed(name, n)
	for ns < budget/10 {
		n *= 4
		ns = timed(name, n)
	}
	n = max(int(float64(n)*budget/ns/float64(step)), 1) * step
	return n, timed(name, n) / float64(n)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	switch name := os.Args[1]; name {
	case "serve":
		serve(os.Args[2])
	case "load":
		load(os.Args[2], os.Args[3], number(os.Args[4]), number(os.Args[5]), seconds(os.Args[6]))
	default:
		operate(name, os.Args[2], number(os.Args[3]), seconds(os.Args[4]))
	}
}

func number(word string) int {
	n, err := strconv.Atoi(word)
	check(err)
	return n
}

func seconds(word string) float64 {
	s, err := strconv.ParseFloat(word, 64)
	check(err)
	return s
}

func operate(name, kind string, n int, seconds float64) {
	if operations[name] == nil {
		panic("no operation " + name)
	}
	var value float64
	switch kind {
	case "rate":
		n, value = rate(name, n, seconds)
	case "once":
		operations[name](max(n/100, 1))
		value = timed(name, n) / float64(n)
	case "bytes":
		operations[name](max(n/1000, 1))
		runtime.GC()
		before := memory()
		operations[name](n)
		value = float64(atPark-before) / float64(n)
	case "million":
		operations[name](max(n/1000, 1))
		value = timed(name, n)/1e9 - looking.Seconds()
	default:
		panic("no kind " + kind)
	}
	fmt.Printf("{\"n\": %d, \"value\": %g, \"memory\": %d, \"uses\": \"\"}\n", n, value, atPark)
}
