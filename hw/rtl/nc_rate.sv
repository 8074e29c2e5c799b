// The rate of the UART. Another one is taken up once the reply is out, and kept as long as frames come whole: RETURN
// clocks without one, from the change or from the first damage later on, lead back to the first rate.
module nc_rate #(
    parameter logic [19:0] FIRST  = 20'd0,
    parameter int          RETURN = 1 << 26
) (
    input  logic        clk,
    input  logic        rst,
    input  logic        change,
    input  logic [19:0] wanted,
    input  logic        quiet,   // nothing left to send
    input  logic        good,
    input  logic        bad,
    output logic [19:0] rate,
    output logic        doubt    // the clock is running against a rate other than the first
);
  localparam int TW = $clog2(RETURN);

  logic [19:0] coming;
  logic [TW:0] timer;
  logic pending, away;  // another rate is to come; is in use
  logic was_pending, was_quiet;  // a clock ago, as it is a long way to here

  always_ff @(posedge clk) begin
    {was_pending, was_quiet} <= {pending && !change, quiet};
    if (rst) begin
      rate    <= FIRST;
      pending <= 1'b0;
      away    <= 1'b0;
      doubt   <= 1'b0;
    end else begin
      if (change) begin
        coming  <= wanted;
        pending <= 1'b1;
      end
      if (pending && was_pending && was_quiet && !change) begin
        rate    <= coming;
        pending <= 1'b0;
        away    <= 1'b1;
        doubt   <= 1'b1;
        timer   <= '0;
      end else if (good) doubt <= 1'b0;
      else if (!doubt) begin
        doubt <= bad && away;
        timer <= '0;
      end else begin
        timer <= timer + 1'b1;
        if (timer[TW]) begin
          rate  <= FIRST;
          away  <= 1'b0;
          doubt <= 1'b0;
        end
      end
    end
  end
endmodule
