// What tests may ask of the device that is the host itself.
#pragma once

namespace onepass::device {

// Whether work waits, as it does in a stream, until something asks for its result.
void defer(bool on);

// Does what waits.
void run_waiting();

// Whether work goes into a graph, a new one from when that begins, instead of being done.
void capture(bool on);

// Does the work of the graph.
void replay();

}  // namespace onepass::device
