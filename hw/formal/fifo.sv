// nc_fifo: what comes out is what went in, in that order; count, empty and full are right.
module fifo (
    input logic       clk,
    input logic       push_wanted,
    input logic       pop_wanted,
    input logic [3:0] wdata
);
  logic running = 1'b0;
  always @(posedge clk) running <= 1'b1;

  logic push, pop, empty, full;
  logic [3:0] rdata;
  logic [2:0] count;
  assign push = running && push_wanted && !full;
  assign pop  = running && pop_wanted && !empty;

  nc_fifo #(
      .WIDTH(4),
      .DEPTH(4)
  ) queue (
      .clk,
      .rst(!running),
      .push,
      .wdata,
      .pop,
      .rdata,
      .empty,
      .full,
      .count
  );

  // one item, whichever it is, is followed from its push to its pop
  (* anyconst *) logic [7:0] which;
  logic [7:0] pushed = '0, popped = '0, held;
  logic [3:0] item;
  assign held = pushed - popped;
  always @(posedge clk) begin
    if (push) pushed <= pushed + 8'd1;
    if (pop) popped <= popped + 8'd1;
    if (push && pushed == which) item <= wdata;
    if (running) begin
      occupancy : assert (count == held[2:0] && held <= 8'd4);
      flags : assert (empty == (held == 8'd0) && full == (held == 8'd4));
`ifndef INDUCTION
      order : assert (!pop || popped != which || rdata == item);
`endif
      filled_and_emptied : cover (pushed == 8'd6 && empty);
      both_at_once : cover (full && pop && pushed == 8'd5);
    end
  end
endmodule
