// A queue of two in registers: neither `ready` nor what is at its head hangs on what happens in the same clock.
module nc_pair #(
    parameter int WIDTH = 8
) (
    input  logic             clk,
    input  logic             rst,
    input  logic             valid,
    input  logic [WIDTH-1:0] wdata,
    output logic             ready,
    output logic             have,
    output logic [WIDTH-1:0] rdata,
    input  logic             take
);
  logic [WIDTH-1:0] second;
  logic full;
  assign ready = !full;
  always_ff @(posedge clk) begin
    if (!full) second <= wdata;
    if (take || !have) begin
      rdata <= full ? second : wdata;
      have  <= full || valid;
      full  <= 1'b0;
    end else if (valid) full <= 1'b1;
    if (rst) {have, full} <= '0;
  end
endmodule
