/**
 * A Chrome trace of what the GPU does for one call: its dispatches, with their times. It opens in
 * chrome://tracing and in Perfetto.
 *
 * @module
 */

import { firstLine } from "../bench_error.ts";
import { caseName, type GpuCase } from "./family.ts";
import { type Lab, withCase } from "./measure.ts";
import type { Interval } from "./timing.ts";

/** One call, as it ran. */
export interface ProfiledCall {
  readonly name: string;
  readonly dispatches: readonly ProfiledDispatch[];
}

/** One dispatch of a call. */
export interface ProfiledDispatch extends Interval {
  readonly kernel: string;
  readonly grid: readonly [number, number];
}

/** Runs one call of each case, warm, and prints its dispatches. */
export async function profileCases(
  lab: Lab,
  cases: readonly GpuCase[],
): Promise<ProfiledCall[]> {
  const calls: ProfiledCall[] = [];
  for (const wanted of cases) {
    const name = caseName(wanted);
    try {
      calls.push(
        await withCase(lab, wanted, undefined, async ({ calls: [call] }) => {
          const intervals = await lab.timer.trace(call, lab.budget);
          const dispatches = call.map(({ kernel, grid }, i) => ({
            kernel: kernel.name,
            grid,
            ...intervals[i],
          }));
          return { name, dispatches };
        }),
      );
    } catch (error) {
      console.log(`  ${name.padEnd(48)} left out: ${firstLine(error)}`);
      continue;
    }
    console.log(`  ${name}`);
    for (const { kernel, grid, begin, end } of calls[calls.length - 1].dispatches) {
      const time = ((end - begin) / 1000).toFixed(1).padStart(9);
      console.log(`    ${time} us  ${kernel}  ${grid.join(" x ")} workgroups`);
    }
  }
  return calls;
}

/** An event of the trace format: complete ones have a time and a duration, in microseconds. */
interface TraceEvent {
  readonly name: string;
  readonly ph: "X" | "M";
  readonly pid: number;
  readonly tid: number;
  readonly ts?: number;
  readonly dur?: number;
  readonly args?: Readonly<Record<string, unknown>>;
}

/** Between calls, since the time from one to the next was spent on the next one's inputs. */
const GAP_MICROSECONDS = 10;

/** The trace of calls, one after the other: each an event that holds its dispatches. */
export function chromeTrace(calls: readonly ProfiledCall[], device: string): string {
  const place = { pid: 1, tid: 1 };
  const events: TraceEvent[] = [
    { name: "process_name", ph: "M", ...place, args: { name: device } },
    { name: "thread_name", ph: "M", ...place, args: { name: "compute queue" } },
  ];
  let at = 0;
  for (const { name, dispatches } of calls) {
    const begin = Math.min(...dispatches.map((dispatch) => dispatch.begin));
    const end = Math.max(...dispatches.map((dispatch) => dispatch.end));
    const timesOf = (interval: Interval) => ({
      ts: at + (interval.begin - begin) / 1000,
      dur: (interval.end - interval.begin) / 1000,
    });
    events.push({ name, ph: "X", ...place, ...timesOf({ begin, end }) });
    for (const { kernel, grid, ...interval } of dispatches) {
      const args = { workgroups: grid.join(" x ") };
      events.push({ name: kernel, ph: "X", ...place, ...timesOf(interval), args });
    }
    at += (end - begin) / 1000 + GAP_MICROSECONDS;
  }
  return `${JSON.stringify({ displayTimeUnit: "ns", traceEvents: events }, null, 1)}\n`;
}
