// A delay line. With a reset it is flip-flops everywhere, where synthesis would make it of look-up tables else.
module nc_delay #(
    parameter int WIDTH = 1,
    parameter int STEPS = 2
) (
    input  logic             clk,
    input  logic             rst,
    input  logic [WIDTH-1:0] d,
    output logic [WIDTH-1:0] q
);
  logic [WIDTH*STEPS-1:0] line;
  assign q = line[WIDTH*(STEPS-1)+:WIDTH];
  if (STEPS == 1) begin : one
    always_ff @(posedge clk) line <= rst ? '0 : d;
  end else begin : more
    always_ff @(posedge clk) line <= rst ? '0 : {line[WIDTH*(STEPS-1)-1:0], d};
  end
endmodule
