// UART receiver, 8N1, one sample in the middle of a bit. The rate is a phase increment: clock * rate / 2^20 baud,
// so that no rate has to divide the clock.
module nc_uart_rx (
    input  logic        clk,
    input  logic        rst,
    input  logic        rx,
    input  logic [19:0] rate,
    output logic        valid,  // one clock
    output logic [ 7:0] data,
    output logic        broken  // one clock: no stop bit where one has to be; the byte is not given out
);
  logic [2:0] line;  // two stages against metastability, one to see the edge
  logic [19:0] phase;
  logic [3:0] count;  // bits still to sample; 0: waiting for a start bit
  logic carry;
  logic [19:0] next_phase;

  assign {carry, next_phase} = {1'b0, phase} + {1'b0, rate};

  always_ff @(posedge clk) begin
    line   <= {line[1:0], rx};
    valid  <= 1'b0;
    broken <= 1'b0;
    if (rst) begin
      line  <= 3'b111;
      count <= 4'd0;
    end else if (count == 4'd0) begin
      phase <= 20'h80000;
      // An edge, not a level: behind a missing stop bit the line has to be high again first.
      if (line[2] && !line[1]) count <= 4'd10;
    end else begin
      phase <= next_phase;
      if (carry) begin
        count <= count - 4'd1;
        if (count == 4'd10) begin
          if (line[1]) count <= 4'd0;  // a glitch
        end else if (count == 4'd1) begin
          valid  <= line[1];
          broken <= !line[1];
        end else data <= {line[1], data[7:1]};
      end
    end
  end
endmodule
