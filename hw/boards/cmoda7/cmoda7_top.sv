// Cmod A7-35T (Digilent, XC7A35T): serial line over the board's FTDI chip, button 0 resets. LED 0 is on while the device
// works, LED 1 while it is not in reset.
module cmoda7_top #(
    parameter int N = 1024,
    parameter int A = 2048,
    parameter int W = 65536,
    parameter int TYPES = 16,
    parameter int GEOMS = 16,
    parameter int X = 1,
    parameter int Y = 1,
    parameter logic [31:0] CLOCK = 32'd80_000_000,
    parameter logic [31:0] RATE = 32'd1510,
    parameter logic [63:0] BUILD = 64'd0,
    // of the MMCM: 12 MHz * MULTIPLY is its oscillator, that by DIVIDE the clock
    parameter int MULTIPLY = 60,
    parameter int DIVIDE = 9
) (
    input  logic       sysclk,
    input  logic       btn0,
    input  logic       uart_txd_in,   // named as the FTDI chip sees it
    output logic       uart_rxd_out,
    output logic [1:0] led
);
  logic clk, made, feedback, locked, rst, active;

  assign led = {!rst, active};

  MMCME2_BASE #(
      .CLKIN1_PERIOD(83.333),
      .CLKFBOUT_MULT_F(MULTIPLY),
      .CLKOUT0_DIVIDE_F(DIVIDE)
  ) mmcm (
      .CLKIN1(sysclk),
      .CLKFBIN(feedback),
      .CLKFBOUT(feedback),
      .CLKOUT0(made),
      .LOCKED(locked),
      .PWRDWN(1'b0),
      .RST(1'b0)
  );

  BUFG spread (
      .I(made),
      .O(clk)
  );

  nc_reset start (
      .clk,
      .steady(locked),
      .button(btn0),
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
      .CLOCK(CLOCK),
      .RATE(RATE),
      .BUILD(BUILD)
  ) device (
      .clk,
      .rst,
      .rx(uart_txd_in),
      .tx(uart_rxd_out),
      .active
  );
endmodule
