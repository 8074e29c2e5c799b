// A delay line of flip-flops, which are kept: synthesis would make it of look-up tables else. Nobody resets it: that would be
// a reset for most flip-flops of a core.
module nc_delay #(
    parameter int WIDTH = 1,
    parameter int STEPS = 2
) (
    input  logic             clk,
    input  logic [WIDTH-1:0] d,
    output logic [WIDTH-1:0] q
);
  logic [WIDTH*STEPS-1:0] line;
  assign q = line[WIDTH*(STEPS-1)+:WIDTH];
  if (STEPS == 1) begin : one
    (* keep *) always_ff @(posedge clk) line <= d;
  end else begin : more
    (* keep *) always_ff @(posedge clk) line <= {line[WIDTH*(STEPS-1)-1:0], d};
  end
endmodule
