// nc_router, all four of them, from whatever state: in every clock each output that is taken carries the head of one queue,
// the only one that loses its head for it, and is the one that this event has to take; no queue loses its head otherwise.
module router (
    input logic        clk,
    input logic [ 2:0] in_valid,
    input logic [38:0] in,
    input logic [ 2:0] taken
);
  router_at #(.MY_X(1'b0), .MY_Y(1'b0)) at0 (.*);
  router_at #(.MY_X(1'b1), .MY_Y(1'b0)) at1 (.*);
  router_at #(.MY_X(1'b0), .MY_Y(1'b1)) at2 (.*);
  router_at #(.MY_X(1'b1), .MY_Y(1'b1)) at3 (.*);
endmodule

module router_at #(
    parameter logic MY_X = 1'b0,
    parameter logic MY_Y = 1'b0
) (
    input logic        clk,
    input logic [ 2:0] in_valid,
    input logic [38:0] in,
    input logic [ 2:0] taken
);
  logic [2:0] in_ready;
  logic core_valid, x_valid, y_valid;
  logic [10:0] core_out;
  logic [12:0] x_out, y_out;
  nc_router #(
      .MY_X(MY_X),
      .MY_Y(MY_Y)
  ) dut (
      .clk, .rst(1'b0),
      .core_in_valid(in_valid[0]), .core_in(in[12:0]), .core_in_ready(in_ready[0]),
      .x_in_valid(in_valid[1]), .x_in(in[25:13]), .x_in_ready(in_ready[1]),
      .y_in_valid(in_valid[2]), .y_in(in[38:26]), .y_in_ready(in_ready[2]),
      .core_out_valid(core_valid), .core_out, .core_out_ready(taken[0]),
      .x_out_valid(x_valid), .x_out, .x_out_ready(taken[1]),
      .y_out_valid(y_valid), .y_out, .y_out_ready(taken[2])
  );

  // router.sby connects these: of the queues from the core, from X, from Y
  (* keep *) logic [12:0] head0, head1, head2;
  (* keep *) logic pop0, pop1, pop2, empty0, empty1, empty2;

  logic to_core1, to_core2, to_x, to_y0, to_y1;
  assign to_x = pop0 && head0[11] != MY_X;
  assign to_y0 = pop0 && head0[11] == MY_X;
  assign to_y1 = pop1 && head1[12] != MY_Y;
  assign to_core1 = pop1 && head1[12] == MY_Y;
  assign to_core2 = pop2;
  always @(posedge clk) begin
    real_heads : assert (!(pop0 && empty0) && !(pop1 && empty1) && !(pop2 && empty2));
    x_as_often : assert ((x_valid && taken[1]) == to_x);
    y_as_often : assert ((y_valid && taken[2]) == (to_y0 || to_y1) && !(to_y0 && to_y1));
    core_as_often : assert ((core_valid && taken[0]) == (to_core1 || to_core2) && !(to_core1 && to_core2));
    x_unchanged : assert (!to_x || x_out == head0);
    y_unchanged : assert ((!to_y0 || y_out == head0) && (!to_y1 || y_out == head1));
    core_unchanged : assert ((!to_core1 || core_out == head1[10:0]) && (!to_core2 || core_out == head2[10:0]));
    all_at_once : cover (pop0 && pop1 && pop2);
    queued_behind : cover (!pop1 && !empty1 && y_valid && taken[2]);
  end
endmodule
