// A router of the mesh: X first, then Y, so no circle of waiting can form and every event ends in a pending memory, which
// always takes it. Ports: the core, the neighbour in X, the neighbour in Y. An event is {y, x, axon} of its destination.
module nc_router #(
    parameter logic MY_X = 1'b0,
    parameter logic MY_Y = 1'b0
) (
    input  logic        clk,
    input  logic        rst,
    output logic        empty,
    input  logic        core_in_valid,
    input  logic [12:0] core_in,
    output logic        core_in_ready,
    output logic        core_out_valid,
    output logic [10:0] core_out,
    input  logic        core_out_ready,
    input  logic        x_in_valid,
    input  logic [12:0] x_in,
    output logic        x_in_ready,
    output logic        x_out_valid,
    output logic [12:0] x_out,
    input  logic        x_out_ready,
    input  logic        y_in_valid,
    input  logic [12:0] y_in,
    output logic        y_in_ready,
    output logic        y_out_valid,
    output logic [12:0] y_out,
    input  logic        y_out_ready
);
  // heads of the three queues, and where they go
  logic [12:0] core_head, x_head;
  // verilator lint_off UNUSEDSIGNAL
  logic [12:0] y_head;  // has arrived
  // verilator lint_on UNUSEDSIGNAL
  logic core_empty, x_empty, y_empty, core_full, x_full, y_full, core_pop, x_pop, y_pop;
  logic core_to_x, core_to_y, x_to_y, x_to_core, y_to_core, y_turn, core_turn;

  nc_fifo #(.WIDTH(13), .DEPTH(4)) from_core (
      .clk, .rst, .push(core_in_valid && core_in_ready), .wdata(core_in), .pop(core_pop), .rdata(core_head),
      // verilator lint_off PINCONNECTEMPTY
      .empty(core_empty), .full(core_full), .count()
      // verilator lint_on PINCONNECTEMPTY
  );
  nc_fifo #(.WIDTH(13), .DEPTH(4)) from_x (
      .clk, .rst, .push(x_in_valid && x_in_ready), .wdata(x_in), .pop(x_pop), .rdata(x_head),
      // verilator lint_off PINCONNECTEMPTY
      .empty(x_empty), .full(x_full), .count()
      // verilator lint_on PINCONNECTEMPTY
  );
  nc_fifo #(.WIDTH(13), .DEPTH(4)) from_y (
      .clk, .rst, .push(y_in_valid && y_in_ready), .wdata(y_in), .pop(y_pop), .rdata(y_head),
      // verilator lint_off PINCONNECTEMPTY
      .empty(y_empty), .full(y_full), .count()
      // verilator lint_on PINCONNECTEMPTY
  );
  assign core_in_ready = !core_full;
  assign x_in_ready = !x_full;
  assign y_in_ready = !y_full;
  assign empty = core_empty && x_empty && y_empty;

  assign core_to_x = !core_empty && core_head[11] != MY_X;
  assign core_to_y = !core_empty && core_head[11] == MY_X;
  assign x_to_y = !x_empty && x_head[12] != MY_Y;
  assign x_to_core = !x_empty && x_head[12] == MY_Y;
  assign y_to_core = !y_empty;

  // where two want one output, the one that did not have it last
  assign x_out_valid = core_to_x;
  assign x_out = core_head;
  assign y_out_valid = core_to_y || x_to_y;
  assign y_out = x_to_y && (!core_to_y || y_turn) ? x_head : core_head;
  assign core_out_valid = x_to_core || y_to_core;
  assign core_out = x_to_core && (!y_to_core || core_turn) ? x_head[10:0] : y_head[10:0];

  assign core_pop = core_to_x ? x_out_ready : core_to_y && y_out_ready && (!x_to_y || !y_turn);
  assign x_pop = x_to_y ? y_out_ready && (!core_to_y || y_turn) : x_to_core && core_out_ready && (!y_to_core || core_turn);
  assign y_pop = y_to_core && core_out_ready && (!x_to_core || !core_turn);

  always_ff @(posedge clk) begin
    if (y_out_valid && y_out_ready) y_turn <= !(x_to_y && (!core_to_y || y_turn));
    if (core_out_valid && core_out_ready) core_turn <= !(x_to_core && (!y_to_core || core_turn));
    if (rst) {y_turn, core_turn} <= '0;
  end
endmodule
