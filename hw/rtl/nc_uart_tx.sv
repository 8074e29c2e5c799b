// UART transmitter, 8N1; the rate as in nc_uart_rx. Bytes follow each other without a pause.
module nc_uart_tx (
    input  logic        clk,
    input  logic        rst,
    input  logic [19:0] rate,
    input  logic        valid,
    input  logic [ 7:0] data,
    output logic        ready,
    output logic        tx
);
  logic [ 8:0] bits;  // what is still to send, lowest first; ones shift in behind: the stop bit, the idle line
  logic [ 3:0] count;
  logic [19:0] phase;
  logic carry;
  logic [19:0] next_phase;

  assign {carry, next_phase} = {1'b0, phase} + {1'b0, rate};
  assign ready = count == 4'd0 || (count == 4'd1 && carry);
  assign tx = bits[0];

  always_ff @(posedge clk) begin
    if (rst) begin
      bits  <= 9'h1ff;
      count <= 4'd0;
    end else if (ready) begin
      bits  <= valid ? {data, 1'b0} : 9'h1ff;
      count <= valid ? 4'd10 : 4'd0;
      phase <= count == 4'd0 ? 20'd0 : next_phase;
    end else begin
      phase <= next_phase;
      if (carry) begin
        bits  <= {1'b1, bits[8:1]};
        count <= count - 4'd1;
      end
    end
  end
endmodule
