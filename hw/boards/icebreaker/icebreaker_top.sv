// iCEBreaker (iCE40UP5K): runs at the 12 MHz of the oscillator, the button resets. The green LED is on while the device
// works, the red one while it is not in reset.
module icebreaker_top #(
    parameter int N = 64,
    parameter int A = 64,
    parameter int W = 256,
    parameter int TYPES = 2,
    parameter int GEOMS = 2,
    parameter int X = 1,
    parameter int Y = 1,
    parameter int LINE = 512,
    parameter int LOG = 64,
    parameter logic [31:0] CLOCK = 32'd12_000_000,
    parameter logic [31:0] RATE = 32'd10066,
    parameter logic [63:0] BUILD = 64'd0
) (
    input  logic clk,
    input  logic btn_n,
    input  logic rx,
    output logic tx,
    output logic ledg_n,
    output logic ledr_n
);
  logic rst, active;

  assign ledg_n = !active;
  assign ledr_n = rst;

  nc_reset start (
      .clk,
      .steady(1'b1),
      .button(!btn_n),
      .rst
  );

  nc_top #(
      .N(N),
      .A(A),
      .W(W),
      .TYPES(TYPES),
      .GEOMS(GEOMS),
      .X(X),
      .Y(Y),
      .LINE(LINE),
      .LOG(LOG),
      .CLOCK(CLOCK),
      .RATE(RATE),
      .BUILD(BUILD)
  ) device (
      .clk,
      .rst,
      .rx,
      .tx,
      .active
  );
endmodule
