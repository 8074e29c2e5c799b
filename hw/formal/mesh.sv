// Four routers as nc_mesh connects them. `progress`: from whatever state, with no event coming in and all cores taking, events
// move in every clock, and all that move come nearer; so there is no deadlock, and what a stalled core held up flows when it
// takes again. Else: queues never overflow. That no event is lost, doubled or changed and that it goes the right way is proved
// of a router (router.sv) and of its queues (fifo.sv).
module mesh (
    input logic        clk,
    input logic [ 3:0] in_wanted,
    input logic [51:0] in,
    input logic [ 3:0] takes
);
  logic running = 1'b0;
  always @(posedge clk) running <= 1'b1;

`ifdef PROGRESS
  logic rst = 1'b0;
  logic [3:0] in_valid, out_ready;
  assign in_valid = '0;
  assign out_ready = '1;
`else
  logic rst;
  logic [3:0] in_valid, out_ready;
  assign rst = !running;
  assign in_valid = in_wanted & {4{running}};
  assign out_ready = takes;
`endif

  logic [3:0] in_ready, out_valid, empty, xv, xr, yv, yr;
  logic [43:0] out;
  logic [12:0] x[4], y[4];

  // by sender: x and y of core i go to its neighbour
  nc_router #(.MY_X(1'b0), .MY_Y(1'b0)) r0 (
      .clk, .rst, .empty(empty[0]),
      .core_in_valid(in_valid[0]), .core_in(in[0+:13]), .core_in_ready(in_ready[0]),
      .core_out_valid(out_valid[0]), .core_out(out[0+:11]), .core_out_ready(out_ready[0]),
      .x_in_valid(xv[1]), .x_in(x[1]), .x_in_ready(xr[1]), .x_out_valid(xv[0]), .x_out(x[0]), .x_out_ready(xr[0]),
      .y_in_valid(yv[2]), .y_in(y[2]), .y_in_ready(yr[2]), .y_out_valid(yv[0]), .y_out(y[0]), .y_out_ready(yr[0])
  );
  nc_router #(.MY_X(1'b1), .MY_Y(1'b0)) r1 (
      .clk, .rst, .empty(empty[1]),
      .core_in_valid(in_valid[1]), .core_in(in[13+:13]), .core_in_ready(in_ready[1]),
      .core_out_valid(out_valid[1]), .core_out(out[11+:11]), .core_out_ready(out_ready[1]),
      .x_in_valid(xv[0]), .x_in(x[0]), .x_in_ready(xr[0]), .x_out_valid(xv[1]), .x_out(x[1]), .x_out_ready(xr[1]),
      .y_in_valid(yv[3]), .y_in(y[3]), .y_in_ready(yr[3]), .y_out_valid(yv[1]), .y_out(y[1]), .y_out_ready(yr[1])
  );
  nc_router #(.MY_X(1'b0), .MY_Y(1'b1)) r2 (
      .clk, .rst, .empty(empty[2]),
      .core_in_valid(in_valid[2]), .core_in(in[26+:13]), .core_in_ready(in_ready[2]),
      .core_out_valid(out_valid[2]), .core_out(out[22+:11]), .core_out_ready(out_ready[2]),
      .x_in_valid(xv[3]), .x_in(x[3]), .x_in_ready(xr[3]), .x_out_valid(xv[2]), .x_out(x[2]), .x_out_ready(xr[2]),
      .y_in_valid(yv[0]), .y_in(y[0]), .y_in_ready(yr[0]), .y_out_valid(yv[2]), .y_out(y[2]), .y_out_ready(yr[2])
  );
  nc_router #(.MY_X(1'b1), .MY_Y(1'b1)) r3 (
      .clk, .rst, .empty(empty[3]),
      .core_in_valid(in_valid[3]), .core_in(in[39+:13]), .core_in_ready(in_ready[3]),
      .core_out_valid(out_valid[3]), .core_out(out[33+:11]), .core_out_ready(out_ready[3]),
      .x_in_valid(xv[2]), .x_in(x[2]), .x_in_ready(xr[2]), .x_out_valid(xv[3]), .x_out(x[3]), .x_out_ready(xr[3]),
      .y_in_valid(yv[1]), .y_in(y[1]), .y_in_ready(yr[1]), .y_out_valid(yv[3]), .y_out(y[3]), .y_out_ready(yr[3])
  );

  // counts of the twelve queues, and those that lose their head; mesh.sby connects them
  (* keep *) logic [2:0] c0, c1, c2, c3, x0, x1, x2, x3, y0, y1, y2, y3;
  (* keep *) logic [3:0] c_pop, x_pop, y_pop;
  logic bounded;
  assign bounded = c0 <= 4 && c1 <= 4 && c2 <= 4 && c3 <= 4 && x0 <= 4 && x1 <= 4 && x2 <= 4 && x3 <= 4
      && y0 <= 4 && y1 <= 4 && y2 <= 4 && y3 <= 4;

`ifdef PROGRESS
  // hops left at most: 3 from a core, 2 behind X, 1 behind Y
  logic [5:0] left, entered;
  logic [3:0] xs, ys;
  assign xs = xv & xr;
  assign ys = yv & yr;
  assign left = 6'd3 * ones(c_pop) + 6'd2 * ones(x_pop) + ones(y_pop);
  assign entered = 6'd2 * ones(xs) + ones(ys);
  function automatic logic [5:0] ones(input logic [3:0] bits);
    ones = 6'(bits[0]) + 6'(bits[1]) + 6'(bits[2]) + 6'(bits[3]);
  endfunction

  always @(posedge clk) begin
    assume (bounded);
    moves : assert (&empty || |{c_pop, x_pop, y_pop});
    nearer : assert (!(|{c_pop, x_pop, y_pop}) || left > entered);
    from_full : cover (&{c0[2], c1[2], c2[2], c3[2], x0[2], x1[2], x2[2], x3[2], y0[2], y1[2], y2[2], y3[2]} && xs == 4'd0);
    all_at_once : cover (&{c_pop, x_pop});
  end
`else
  logic [6:0] queued;
  assign queued = c0 + c1 + c2 + c3 + x0 + x1 + x2 + x3 + y0 + y1 + y2 + y3;
  always @(posedge clk) begin
    no_overflow : assert (!running || bounded);
    held_up : cover (running && queued >= 7'd8 && !(&in_ready));
  end
`endif

endmodule
